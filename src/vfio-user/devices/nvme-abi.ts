/*
 * NVM Express 1.4: numbers under the specification's names, only what this controller knows. Offsets are in bytes;
 * masks are named for their field, shifts end in _SHIFT.
 */

export const NVME_PAGE = 4096;
export const NVME_BLOCK = 512;

/** Controller registers. NVMe 1.4 §3.1 */
export const CC_EN = 0x1;
export const CC_CSS = 0x70;
export const CC_MPS = 0x780;
export const CC_SHN = 0xc000;
export const CC_IOSQES = 0xf_0000;
export const CC_IOCQES = 0xf0_0000;
export const CC_IOSQES_64: number = 6 << 16;
export const CC_IOCQES_16: number = 4 << 20;
export const CSTS_RDY = 0x1;
export const CSTS_CFS = 0x2;
export const CSTS_SHST_COMPLETE = 0x8;
/** Where the doorbells begin; 4 bytes each (CAP.DSTRD 0). */
export const DOORBELLS = 0x1000;

/** Submission queue entry. §4.2 */
export const SQE = {
  size: 64,
  opcode: 0,
  flags: 1,
  cid: 2,
  nsid: 4,
  mptr: 16,
  prp1: 24,
  prp2: 32,
  cdw10: 40,
  cdw11: 44,
  cdw12: 48,
  cdw13: 52,
  cdw14: 56,
  cdw15: 60,
} as const;
/** FUSE and PSDT of the flags byte: neither fused commands nor SGLs are supported. */
export const SQE_FUSE_AND_PSDT = 0xc3;

/** Completion queue entry. §4.6 */
export const CQE = { size: 16, result: 0, sqHead: 8, sqId: 10, cid: 12, status: 14 } as const;

/** Admin commands. §5 */
export const ADMIN_DELETE_SQ = 0x00;
export const ADMIN_CREATE_SQ = 0x01;
export const ADMIN_GET_LOG_PAGE = 0x02;
export const ADMIN_DELETE_CQ = 0x04;
export const ADMIN_CREATE_CQ = 0x05;
export const ADMIN_IDENTIFY = 0x06;
export const ADMIN_ABORT = 0x08;
export const ADMIN_SET_FEATURES = 0x09;
export const ADMIN_GET_FEATURES = 0x0a;
export const ADMIN_ASYNC_EVENT = 0x0c;

/** NVM commands. §6 */
export const NVM_FLUSH = 0x00;
export const NVM_WRITE = 0x01;
export const NVM_READ = 0x02;
export const NVM_WRITE_ZEROES = 0x08;

/** Dword 12 of Read, Write and Write Zeroes: Force Unit Access. §6.9, §6.15, §6.17 */
export const CDW12_FUA = 0x4000_0000;

/** Status: code in the low byte, code type above it. §4.6.1 */
export const STATUS_SUCCESS = 0x000;
export const STATUS_INVALID_OPCODE = 0x001;
export const STATUS_INVALID_FIELD = 0x002;
export const STATUS_DATA_TRANSFER_ERROR = 0x004;
export const STATUS_INTERNAL_ERROR = 0x006;
export const STATUS_ABORT_REQUESTED = 0x007;
export const STATUS_INVALID_NAMESPACE = 0x00b;
export const STATUS_INVALID_PRP_OFFSET = 0x013;
export const STATUS_LBA_OUT_OF_RANGE = 0x080;
export const STATUS_CQ_INVALID = 0x100;
export const STATUS_INVALID_QUEUE_ID = 0x101;
export const STATUS_INVALID_QUEUE_SIZE = 0x102;
export const STATUS_ASYNC_LIMIT = 0x105;
export const STATUS_INVALID_VECTOR = 0x108;
export const STATUS_INVALID_LOG_PAGE = 0x109;
export const STATUS_INVALID_QUEUE_DELETION = 0x10c;
export const STATUS_FEATURE_NOT_SAVEABLE = 0x10d;
/** DNR. */
export const STATUS_DO_NOT_RETRY = 0x4000;

/** Log pages. §5.14.1 */
export const LOG_ERROR = 0x01;
export const LOG_SMART = 0x02;
export const LOG_FIRMWARE = 0x03;

/** Features. §5.21.1 */
export const FEATURE_ARBITRATION = 0x01;
export const FEATURE_POWER_MANAGEMENT = 0x02;
export const FEATURE_TEMPERATURE = 0x04;
export const FEATURE_ERROR_RECOVERY = 0x05;
export const FEATURE_WRITE_CACHE = 0x06;
/** Bit 0 of its value: the cache is on. §5.21.1.6 */
export const WRITE_CACHE_ENABLE = 0x1;
export const FEATURE_QUEUES = 0x07;
export const FEATURE_COALESCING = 0x08;
export const FEATURE_VECTOR = 0x09;
export const FEATURE_ATOMICITY = 0x0a;
export const FEATURE_ASYNC_EVENTS = 0x0b;

/** Identify: what is asked for. §5.15.1 */
export const CNS_NAMESPACE = 0x00;
export const CNS_CONTROLLER = 0x01;
export const CNS_ACTIVE_NAMESPACES = 0x02;
export const CNS_NAMESPACE_DESCRIPTORS = 0x03;
