// The protected program without a C library or a loader: leaves the same mark as marker.rs, whatever maps it. Statically
// linked at a fixed address, as many Go programs are.
#include <stddef.h>

static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static char line[65536];
static size_t used;

static void put(char c)
{
    if (used < sizeof line)
        line[used++] = c;
}

static void text(const char *s)
{
    while (*s)
        put(*s++);
}

static void hex(const char *s, long length)
{
    put('"');
    for (long i = 0; length < 0 ? s[i] != 0 : i < length; i++) {
        put("0123456789abcdef"[(unsigned char)s[i] >> 4]);
        put("0123456789abcdef"[(unsigned char)s[i] & 15]);
    }
    put('"');
}

static void number(unsigned long value)
{
    if (value > 9)
        number(value / 10);
    put('0' + value % 10);
}

void begin(long *stack)
{
    char **argv = (char **)(stack + 1), **envp = argv + stack[0] + 1;
    char exe[4096];
    text("{\"pid\":");
    number(call(39, 0, 0, 0)); // getpid
    text(",\"at\":0,\"exe\":");
    hex(exe, call(89, (long)"/proc/self/exe", (long)exe, sizeof exe)); // readlink
    text(",\"argv\":[");
    for (long i = 0; i < stack[0]; i++) {
        if (i)
            put(',');
        hex(argv[i], -1);
    }
    text("]}\n");
    for (; *envp; envp++) {
        const char *name = "ANA_TEST_MARKS=", *at = *envp;
        while (*name && *name == *at)
            name++, at++;
        if (*name)
            continue;
        long fd = call(2, (long)at, 02001, 0); // open, O_WRONLY | O_APPEND
        call(1, fd, (long)line, used);         // write
    }
    call(231, 0, 0, 0); // exit_group
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\nand $-16, %rsp\ncall begin\n");
