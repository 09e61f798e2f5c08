/*
 * The floor: what the same kernel interfaces cost a program that does nothing else.
 *
 *   floor guest IMAGE            runs a multiboot image (ELF32) on /dev/kvm: COM1 goes to standard output, port 0xf4 ends it
 *   floor pread FILE SIZE COUNT  reads at random offsets by pread; prints nanoseconds a read
 */
#include <elf.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RAM_BYTES (16u << 20)
#define COM1 0x3f8
#define DEBUG_EXIT 0xf4

static int check(int result, const char *what) {
  if (result < 0) {
    perror(what);
    exit(1);
  }
  return result;
}

static uint32_t load(const char *path, uint8_t *ram) {
  int file = check(open(path, O_RDONLY), path);
  struct stat status;
  check(fstat(file, &status), "fstat");
  uint8_t *image = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
  if (image == MAP_FAILED || status.st_size < (off_t)sizeof(Elf32_Ehdr)) exit(1);
  const Elf32_Ehdr *header = (const Elf32_Ehdr *)image;
  const Elf32_Phdr *segments = (const Elf32_Phdr *)(image + header->e_phoff);
  for (int i = 0; i < header->e_phnum; i++) {
    if (segments[i].p_type != PT_LOAD) continue;
    if ((uint64_t)segments[i].p_paddr + segments[i].p_filesz > RAM_BYTES) exit(1);
    memcpy(ram + segments[i].p_paddr, image + segments[i].p_offset, segments[i].p_filesz);
  }
  return header->e_entry;
}

static void flat(struct kvm_segment *segment, int selector, int type) {
  *segment = (struct kvm_segment){.base = 0, .limit = 0xffffffff, .selector = selector, .type = type,
                                  .present = 1, .db = 1, .s = 1, .g = 1};
}

static int guest(const char *path) {
  int kvm = check(open("/dev/kvm", O_RDWR), "/dev/kvm");
  int vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
  check(ioctl(vm, KVM_SET_TSS_ADDR, 0xf8000000ul), "KVM_SET_TSS_ADDR");
  check(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
  uint8_t *ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (ram == MAP_FAILED) return 1;
  struct kvm_userspace_memory_region region = {.memory_size = RAM_BYTES, .userspace_addr = (uint64_t)ram};
  check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
  int vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
  int size = check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
  struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  if (run == MAP_FAILED) return 1;
  struct {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entries[256];
  } cpuid = {.head = {.nent = 256}};
  check(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid), "KVM_GET_SUPPORTED_CPUID");
  check(ioctl(vcpu, KVM_SET_CPUID2, &cpuid), "KVM_SET_CPUID2");
  struct kvm_sregs sregs;
  check(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
  flat(&sregs.cs, 8, 11);
  flat(&sregs.ds, 16, 3);
  sregs.es = sregs.ss = sregs.fs = sregs.gs = sregs.ds;
  sregs.cr0 |= 1;
  check(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
  struct kvm_regs regs = {.rip = load(path, ram), .rflags = 2, .rax = 0x2badb002};
  check(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");

  for (;;) {
    check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
    if (run->exit_reason == KVM_EXIT_IO) {
      uint8_t *data = (uint8_t *)run + run->io.data_offset;
      if (run->io.direction == KVM_EXIT_IO_IN) memset(data, 0, (size_t)run->io.size * run->io.count);
      else if (run->io.port == COM1) {
        fwrite(data, run->io.size, run->io.count, stdout);
        if (data[0] == '\n') fflush(stdout);
      } else if (run->io.port == DEBUG_EXIT) return 0;
    } else if (run->exit_reason == KVM_EXIT_MMIO) {
      if (!run->mmio.is_write) memset(run->mmio.data, 0, sizeof run->mmio.data);
    } else {
      fprintf(stderr, "floor: exit reason %u\n", run->exit_reason);
      return 1;
    }
  }
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e9 + time.tv_nsec;
}

static int preads(const char *path, size_t size, long count) {
  int file = check(open(path, O_RDONLY), path);
  struct stat status;
  check(fstat(file, &status), "fstat");
  uint64_t slots = status.st_size / size;
  if (slots == 0 || count <= 0) return 1;
  char *buffer = aligned_alloc(4096, size);
  uint32_t seed = 0x2545f491;
  double started = now();
  for (long i = 0; i < count; i++) {
    seed ^= seed << 13, seed ^= seed >> 17, seed ^= seed << 5;
    if (pread(file, buffer, size, (off_t)(seed % slots) * size) != (ssize_t)size) return 1;
  }
  printf("%.1f\n", (now() - started) / count);
  return 0;
}

int main(int count, char **words) {
  if (count == 3 && strcmp(words[1], "guest") == 0) return guest(words[2]);
  if (count == 5 && strcmp(words[1], "pread") == 0) return preads(words[2], strtoul(words[3], NULL, 0), atol(words[4]));
  fprintf(stderr, "usage: floor guest IMAGE | floor pread FILE SIZE COUNT\n");
  return 2;
}
