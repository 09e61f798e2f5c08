import t from "tap";
import { masterBootRecord, PARTITION_TYPE } from "../../../guest-images/disk.ts";

t.test("masterBootRecord() has one partition up to the disk's end. UEFI 2.10 §5.2.1", (t) => {
  const record = masterBootRecord(0x2_0000, 0x800, PARTITION_TYPE.linux);
  t.equal(record.length, 512);
  t.equal(record.readUInt16LE(510), 0xaa55);
  t.equal(record[446], 0, "not active");
  t.equal(record[450], 0x83, "Linux");
  t.equal(record.readUInt32LE(454), 0x800, "first sector");
  t.equal(record.readUInt32LE(458), 0x2_0000 - 0x800, "sectors");
  t.ok(record.subarray(462, 510).equals(Buffer.alloc(48)), "the other three are empty");
  t.end();
});
