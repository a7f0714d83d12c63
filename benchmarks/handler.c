/* A page fault handler in C, in the process that faults: what the pager is measured against.
 *
 * One array lies in a memory object, mapped shared and read-only, registered MISSING | MINOR:
 * the kind of memory that lazyarr uses.  A thread polls the userfaultfd, reads the chunk that
 * a fault wants from its file, decompresses it, and installs it with UFFDIO_COPY.  Compiled
 * with -DWITH_ZSTD where libzstd's header is there, else for uncompressed chunks only.
 *
 * It does what a fault costs at least and no more: no checksums, no record of what is
 * resident, no limit, one thread.  On an error the process ends: a benchmark that goes on
 * after one has measured nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef WITH_ZSTD
#include <zstd.h>
#endif

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

struct handler {
    int uffd, memfd, file, compressed;
    uint64_t unit_nbytes, n_units;
    uint64_t *offsets, *sizes; /* where each unit's chunk lies in the file, in bytes */
    char *address, *encoded, *decoded;
    pthread_t thread;
};

static void die(const char *what) {
    fprintf(stderr, "benchmarks/handler.c: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static void read_chunk(struct handler *h, uint64_t unit, char *into) {
    uint64_t done = 0;
    while (done < h->sizes[unit]) {
        ssize_t n = pread(h->file, into + done, h->sizes[unit] - done, h->offsets[unit] + done);
        if (n <= 0) die("pread");
        done += n;
    }
}

static void load(struct handler *h, uint64_t unit) {
    if (!h->compressed) {
        read_chunk(h, unit, h->decoded);
        return;
    }
    read_chunk(h, unit, h->encoded);
#ifdef WITH_ZSTD
    static ZSTD_DCtx *context; /* one handler thread */
    if (!context) context = ZSTD_createDCtx();
    size_t n = ZSTD_decompressDCtx(context, h->decoded, h->unit_nbytes, h->encoded, h->sizes[unit]);
    if (ZSTD_isError(n) || n != h->unit_nbytes) die("ZSTD_decompressDCtx");
#else
    errno = ENOTSUP;
    die("built without libzstd");
#endif
}

static void *serve(void *argument) {
    struct handler *h = argument;
    struct pollfd waited = {.fd = h->uffd, .events = POLLIN};
    for (;;) {
        if (poll(&waited, 1, -1) < 0 && errno != EINTR) die("poll");
        struct uffd_msg message;
        ssize_t n = read(h->uffd, &message, sizeof message);
        if (n < 0 && errno == EAGAIN) continue;
        if (n != sizeof message || message.event != UFFD_EVENT_PAGEFAULT) die("read");
        uint64_t unit = (message.arg.pagefault.address - (uintptr_t)h->address) / h->unit_nbytes;
        load(h, unit);
        struct uffdio_copy copy = {
            .dst = (uintptr_t)h->address + unit * h->unit_nbytes,
            .src = (uintptr_t)h->decoded,
            .len = h->unit_nbytes,
        };
        if (ioctl(h->uffd, UFFDIO_COPY, &copy) < 0) die("UFFDIO_COPY");
    }
    return NULL;
}

static int open_userfaultfd(void) {
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int fd = device < 0 ? -1 : ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    if (device >= 0) close(device);
    if (fd < 0) fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (fd < 0) die("userfaultfd");
    struct uffdio_api api = {
        .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM};
    if (ioctl(fd, UFFDIO_API, &api) < 0) die("UFFDIO_API");
    return fd;
}

static uint64_t *duplicate(const uint64_t *numbers, uint64_t n) {
    uint64_t *copy = malloc(n * sizeof *copy);
    if (!copy) die("malloc");
    return memcpy(copy, numbers, n * sizeof *copy);
}

/* Memory as a scratch buffer should be: there already, so that it never faults. */
static char *scratch(uint64_t nbytes) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
    char *address = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (address == MAP_FAILED) die("mmap");
    return address;
}

/* Whether handler_open takes compressed chunks. */
int handler_can_decompress(void) {
#ifdef WITH_ZSTD
    return 1;
#else
    return 0;
#endif
}

/* Map n_units units of unit_nbytes each (whole pages) and serve their faults until the
 * process ends.  Unit i is sizes[i] bytes from offsets[i] of the file. */
struct handler *handler_open(const char *path, uint64_t unit_nbytes, uint64_t n_units,
                             const uint64_t *offsets, const uint64_t *sizes, int compressed) {
    struct handler *h = calloc(1, sizeof *h);
    if (!h) die("calloc");
    uint64_t largest = 0, nbytes = unit_nbytes * n_units;
    for (uint64_t i = 0; i < n_units; i++)
        if (sizes[i] > largest) largest = sizes[i];
    h->unit_nbytes = unit_nbytes, h->n_units = n_units, h->compressed = compressed;
    h->offsets = duplicate(offsets, n_units), h->sizes = duplicate(sizes, n_units);
    h->encoded = scratch(largest), h->decoded = scratch(unit_nbytes);
    h->file = open(path, O_RDONLY | O_CLOEXEC);
    h->memfd = memfd_create("benchmark", MFD_CLOEXEC);
    if (h->file < 0 || h->memfd < 0 || ftruncate(h->memfd, nbytes) < 0) die("open");
    h->address = mmap(NULL, nbytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, h->memfd, 0);
    if (h->address == MAP_FAILED) die("mmap");
    h->uffd = open_userfaultfd();
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)h->address, .len = nbytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
    };
    if (ioctl(h->uffd, UFFDIO_REGISTER, &range) < 0) die("UFFDIO_REGISTER");
    if (pthread_create(&h->thread, NULL, serve, h)) die("pthread_create");
    return h;
}

void *handler_address(struct handler *h) { return h->address; }

/* Take every page out again. */
void handler_evict(struct handler *h) {
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (fallocate(h->memfd, mode, 0, h->unit_nbytes * h->n_units) < 0) die("fallocate");
}
