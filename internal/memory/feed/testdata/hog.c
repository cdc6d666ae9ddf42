// hog MB CHILDREN OUT: a program whose memory can be checked byte for byte, whatever is done to it.
//
// Each page is filled from its number and a version; a page without a version is zero. Two threads read and rewrite pages at
// random all the time. Signals have the main thread do things; after each of them a line is appended to OUT:
//
//	USR1  check every page           USR2  fork a child that checks every page
//	HUP   MADV_DONTNEED              WINCH mremap of the whole area to another place
//	URG   munmap and map again       IO    split the mapping in many, without an event
//	TSTP  fork a child that forks a child that checks, and drops pages itself
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORDS = 512, PAGE = 4096 };

static uint64_t pages, *data;
static uint32_t *versions; // 0: the page is zero
static const char *out;
static pthread_mutex_t halves[2] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
static volatile int wrong;

static uint64_t mix(uint64_t x) {
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static void say(const char *format, ...) {
	char line[300];
	va_list args;
	va_start(args, format);
	int n = vsnprintf(line, sizeof line - 1, format, args);
	va_end(args);
	line[n++] = '\n';
	int fd = open(out, O_APPEND | O_CREAT | O_WRONLY, 0644);
	if (fd < 0 || write(fd, line, n) != n)
		_exit(9);
	close(fd);
}

// A third of all pages have the content of another one: what is stored once is needed several times.
static uint64_t word(uint64_t page, uint64_t i) {
	uint32_t v = versions[page];
	if (v == 0)
		return 0;
	if (v == 1 && page % 3 == 0)
		page = 0;
	return mix(page << 32 | v) ^ i * 0x9e3779b97f4a7c15ull;
}

static void fill(uint64_t page) {
	for (uint64_t i = 0; i < WORDS; i++)
		data[page * WORDS + i] = word(page, i);
}

static void check(const char *who) {
	uint64_t bad = 0, first = 0;
	for (uint64_t p = 0; p < pages; p++)
		for (uint64_t i = 0; i < WORDS; i++)
			if (data[p * WORDS + i] != word(p, i)) {
				if (!bad++)
					first = p;
				break;
			}
	if (bad || wrong)
		say("WRONG %s %d: %llu pages, the first %llu at %p, version %u; %d when touched", who, getpid(), (unsigned long long)bad,
		    (unsigned long long)first, (void *)(data + first * WORDS), versions[first], wrong);
	else
		say("right %s", who);
}

static void *touch(void *argument) {
	uint64_t half = (uint64_t)argument, x = half + 1;
	for (;;) {
		pthread_mutex_lock(&halves[half]);
		for (int k = 0; k < 10; k++) {
			x = mix(x);
			uint64_t page = x % (pages / 2) * 2 + half;
			if (data[page * WORDS + x % WORDS] != word(page, x % WORDS))
				wrong++;
			versions[page] = versions[page] < 2 ? 2 : versions[page] + 1;
			fill(page);
		}
		pthread_mutex_unlock(&halves[half]);
		usleep(1000);
	}
	return NULL;
}

static uint64_t turn(void) {
	static uint64_t n;
	return n++ % 16 * (pages / 16);
}

static void forget(uint64_t from, uint64_t count) { memset(versions + from, 0, count * sizeof *versions); }

static void drop(void) {
	uint64_t from = turn();
	madvise(data + from * WORDS, pages / 16 * PAGE, MADV_DONTNEED);
	forget(from, pages / 16);
}

static void act(int signal) {
	uint64_t from;
	void *place;
	pid_t child;
	switch (signal) {
	case SIGUSR1:
		check("self");
		break;
	case SIGUSR2:
		if (fork() == 0) {
			check("child");
			_exit(0);
		}
		say("forked");
		break;
	case SIGTSTP:
		if (fork() == 0) {
			drop();
			if ((child = fork()) == 0) {
				check("grandchild");
				_exit(0);
			}
			check("child");
			_exit(0);
		}
		say("forked");
		break;
	case SIGHUP:
		drop();
		say("dropped");
		break;
	case SIGURG:
		from = turn();
		munmap(data + from * WORDS, pages / 16 * PAGE);
		if (mmap(data + from * WORDS, pages / 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
			_exit(8);
		forget(from, pages / 16);
		say("unmapped");
		break;
	case SIGWINCH:
		place = mmap(NULL, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		// A mapping a time: mremap moves no more than one.
		for (uint64_t i = 0; i < 16; i++)
			for (uint64_t k = 0; k < 4; k++) {
				uint64_t at = (i * 4 + k) * (pages / 64);
				char *to = (char *)place + at * PAGE;
				if (mremap(data + at * WORDS, pages / 64 * PAGE, pages / 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
					_exit(7);
			}
		data = place;
		say("moved");
		break;
	case SIGIO:
		for (uint64_t i = 0; i < 64; i += 2)
			madvise(data + i * (pages / 64) * WORDS, pages / 64 * PAGE, MADV_DONTDUMP);
		say("split");
		break;
	}
}

int main(int argc, char **argv) {
	if (argc != 4)
		return 2;
	pages = atoll(argv[1]) * 256;
	out = argv[3];
	data = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	versions = mmap(NULL, pages * sizeof *versions, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(data + pages / 2 * WORDS, pages / 4 * PAGE, MADV_HUGEPAGE);
	for (uint64_t p = 0; p < pages; p++)
		if (p % 97 != 0) {
			versions[p] = 1;
			fill(p);
		}
	sigset_t set;
	sigfillset(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGCHLD, SIG_IGN);
	for (int i = atoi(argv[2]); i > 0; i--)
		if (fork() == 0)
			break; // a child is as good a hog as its parent
	pthread_t thread;
	pthread_create(&thread, NULL, touch, (void *)0);
	pthread_create(&thread, NULL, touch, (void *)1);
	say("ready");
	for (;;) {
		int signal;
		sigwait(&set, &signal);
		pthread_mutex_lock(&halves[0]);
		pthread_mutex_lock(&halves[1]);
		act(signal);
		pthread_mutex_unlock(&halves[1]);
		pthread_mutex_unlock(&halves[0]);
	}
}
