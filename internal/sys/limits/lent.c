// The code that a CRIU gets lent: see limits.go. It is copied out of this program by its section, so it must call nothing, use no
// constant outside of the section, and reach the one thing that it imports through the table behind it. -Os keeps the compiler from
// laying out tables, and the inlined functions in one.
#include <asm/unistd.h>
#include <linux/errno.h>

#define SECTION "migrate_limits"
#define INLINE static inline __attribute__((always_inline))

INLINE long kernel(long n, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return n;
#else
	register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d,
		      x4 __asm__("x4") = e, x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
#endif
}

// imported is the address of libc's __errno_location, which the loader puts into the table: migrate_table bytes behind the section.
INLINE int *(*imported(void))(void)
{
	char *start;
#if defined(__x86_64__)
	__asm__("lea __start_" SECTION "(%%rip), %0" : "=r"(start));
#else
	__asm__("adr %0, __start_" SECTION : "=r"(start));
#endif
	return *(int *(**)(void))(start + TABLE);
}

// column reads a number of a line: digits, or "unlimited".
INLINE unsigned long column(const char *text)
{
	unsigned long n = 0;
	if (*text == 'u')
		return ~0UL;
	for (; *text >= '0' && *text <= '9'; text++)
		n = n * 10 + (*text - '0');
	return n;
}

// read_limits fills in what /proc/PID/limits says: a line of titles, and one for each resource in the order of their numbers, each
// "%-25s %-20s %-20s %-10s". Negative: an errno.
INLINE long read_limits(long pid, long resource, unsigned long *limit)
{
	volatile char path[32]; // or the letters below become a constant of the compiler's, which would not be in the section
	char text[2048];
	int at = 0;
	path[at++] = '/', path[at++] = 'p', path[at++] = 'r', path[at++] = 'o', path[at++] = 'c', path[at++] = '/';
	long scale = 1;
	while (pid / scale >= 10)
		scale *= 10;
	for (; scale; scale /= 10)
		path[at++] = '0' + pid / scale % 10;
	path[at++] = '/', path[at++] = 'l', path[at++] = 'i', path[at++] = 'm', path[at++] = 'i', path[at++] = 't', path[at++] = 's', path[at] = 0;
	long fd = kernel(__NR_openat, -100, (long)path, 02000000, 0, 0, 0); // AT_FDCWD, O_CLOEXEC
	if (fd < 0)
		return fd;
	long size = kernel(__NR_read, fd, (long)text, sizeof(text) - 1, 0, 0, 0);
	kernel(__NR_close, fd, 0, 0, 0, 0, 0);
	if (size <= 0)
		return -EPERM;
	const char *line = text, *end = text + size;
	for (long n = 0; n <= resource; n++) {
		while (line < end && *line != '\n')
			line++;
		line++;
	}
	if (line + 48 > end)
		return -EPERM;
	text[size] = 0;
	limit[0] = column(line + 26);
	limit[1] = column(line + 47);
	return 0;
}

__attribute__((section(SECTION), used, noinline)) long migrate_lent_syscall(long n, long a, long b, long c, long d, long e, long f)
{
	long r = kernel(n, a, b, c, d, e, f);
	if (r == -EPERM && n == __NR_prlimit64 && a > 0 && b >= 0 && b < 16 && c == 0 && d != 0)
		r = read_limits(a, b, (unsigned long *)d);
	if ((unsigned long)r > -4096UL) {
		*imported()() = -r;
		return -1;
	}
	return r;
}
