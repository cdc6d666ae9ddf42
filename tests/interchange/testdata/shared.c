// Two processes with one address space.

#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static char stack[1 << 16];

static int child(void *unused)
{
	(void)unused;
	for (;;)
		pause();
}

int main(void)
{
	if (clone(child, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL) < 0) {
		perror("clone");
		return 1;
	}
	for (int i = 1;; i++) {
		printf("tick %d\n", i);
		fflush(stdout);
		usleep(50000);
	}
}
