// Everything a process must do before the Go runtime starts its first thread: setns(2) into a user, mount or time
// namespace is refused to a process with several threads, and only a forked child lives in a new pid namespace.
//
//   1 read one netlink-encoded message (message.h) from the descriptor that ENV_FD names; without the variable: do nothing
//   2 set oom_score_adj while the process is still dumpable
//   3 open every namespace file, for after a join their paths may be out of reach
//   4 fork a mapper, which stays outside, when maps or time offsets must be written from there
//   5 join the given namespaces, then create the new ones
//   6 fork init as a child of our parent (CLONE_PARENT), report its pid, leave
//   7 init becomes leader of a session and root of its namespaces, and goes on into Go
//
// The answer on the same descriptor is one record: init's pid, or a pid below zero and a text. When the caller wants to
// follow, records with a pid of zero and a text come before it.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "message.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

// The same values stand in bootstrap.go.
#define ENV_FD "_MIGRATE_BOOTSTRAP"
#define INIT_NAME "migrate:init"
#define RECORD_TEXT 252

struct record {
	int32_t pid;
	char text[RECORD_TEXT];
};

static int report_fd = -1;

// fail sends the parent the reason and ends this process. What the reader gets is one sentence with the errno's words.
static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
	int saved = errno;
	struct record record = { .pid = -1 };
	va_list args;

	va_start(args, format);
	int n = vsnprintf(record.text, sizeof(record.text), format, args);
	va_end(args);
	if (saved && n >= 0 && (size_t) n < sizeof(record.text))
		snprintf(record.text + n, sizeof(record.text) - n, ": %s", strerror(saved));
	if (write(report_fd, &record, sizeof(record)) < 0)
		_exit(2);
	_exit(1);
}

// note tells a parent that listens what is being done; that it can't be told is no reason to fail.
static void __attribute__((format(printf, 2, 3))) note(const struct message *message, const char *format, ...)
{
	struct record record = { .pid = 0 };
	va_list args;

	if (!message->debug)
		return;
	int n = snprintf(record.text, sizeof(record.text), "nsexec[%d]: ", getpid());
	va_start(args, format);
	vsnprintf(record.text + n, sizeof(record.text) - n, format, args);
	va_end(args);
	if (write(report_fd, &record, sizeof(record)) < 0)
		return;
}

static void read_full(int fd, void *buffer, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = read(fd, (char *)buffer + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			fail("read bootstrap message: %zu of %zu bytes", done, len);
		done += n;
	}
}

// read_message takes the message from fd. Its buffer is never freed: init lives on with a few hundred bytes more.
static void read_message(int fd, struct message *message)
{
	char header[MESSAGE_HEADER], reason[RECORD_TEXT - 32];
	read_full(fd, header, sizeof(header));
	long len = message_length(header, reason, sizeof(reason));
	errno = 0;
	if (len < 0)
		fail("bootstrap message: %s", reason);
	char *data = malloc(len + 1);
	if (!data)
		fail("allocate bootstrap message");
	read_full(fd, data, len);
	errno = 0;
	if (message_parse(data, len, message, reason, sizeof(reason)) < 0)
		fail("bootstrap message: %s", reason);
}

// write_proc writes one of the files of /proc/PID in a single write(2), as the id maps demand.
static int write_proc(pid_t pid, const char *name, struct text text)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = write(fd, text.data, text.len);
	int saved = errno;
	close(fd);
	errno = saved;
	return n == (ssize_t) text.len ? 0 : -1;
}

// open_joins opens the files of the namespaces to join.
static void open_joins(struct message *message)
{
	for (size_t i = 0; i < message->join_count; i++) {
		struct join *join = &message->joins[i];
		char *path = strndup(join->path.data, join->path.len);
		join->fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		if (join->fd < 0)
			fail("open namespace %.*s", (int)join->path.len, join->path.data);
		free(path);
	}
}

// run_mapper execs newuidmap or newgidmap with the lines of the map as arguments.
static int run_mapper(const char *program, pid_t pid, struct text map)
{
	pid_t child = fork();
	if (child < 0)
		return -1;
	if (child == 0) {
		char *argv[2 + MAX_MAP_WORDS + 1], number[16];
		char *copy = strdup(map.data);
		if (!copy)
			_exit(127);
		snprintf(number, sizeof(number), "%d", pid);
		argv[0] = (char *)program;
		argv[1] = number;
		argv[2 + map_words(copy, argv + 2, MAX_MAP_WORDS)] = NULL;
		execve(program, argv, (char *[]) { NULL });
		_exit(127);
	}
	int status;
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	errno = EPERM;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

static void write_map(pid_t pid, const char *name, struct text map, struct text program)
{
	if (!map.data || write_proc(pid, name, map) == 0)
		return;
	if (errno == EPERM && program.data && run_mapper(program.data, pid, map) == 0)
		return;
	if (program.data)
		fail("write %s (\"%.80s\") by %s (it maps what /etc/sub%.3s gives the user, no more)", name, map.data, program.data, name);
	fail("write %s (\"%.80s\")", name, map.data);
}

// map_namespaces serves the process pid from outside of its new user namespace, where the right to write maps is.
static void __attribute__((noreturn)) map_namespaces(const struct message *message, pid_t pid, int sock)
{
	char order;
	while (read(sock, &order, 1) == 1) {
		if (order == 'm') {
			// Since Linux 3.19 an unprivileged writer must give up setgroups(2) before it may write gid_map.
			if (message->rootless && !message->setgroups
			    && write_proc(pid, "setgroups", (struct text) { "deny", 4 }) < 0)
				fail("deny setgroups");
			write_map(pid, "uid_map", message->uid_map, message->newuidmap);
			write_map(pid, "gid_map", message->gid_map, message->newgidmap);
		} else if (write_proc(pid, "timens_offsets", message->time_offsets) < 0) {
			fail("write timens_offsets");
		}
		if (write(sock, &order, 1) != 1)
			_exit(1);
	}
	_exit(0);
}

static int start_mapper(const struct message *message)
{
	int pair[2];
	pid_t self = getpid();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		fail("make mapper's socket");
	pid_t pid = fork();
	if (pid < 0)
		fail("fork mapper");
	if (pid == 0) {
		close(pair[0]);
		map_namespaces(message, self, pair[1]);
	}
	close(pair[1]);
	return pair[0];
}

// order waits until the mapper has done it. A mapper that failed has reported why.
static void order(int mapper, char what)
{
	char done;
	if (write(mapper, &what, 1) != 1 || read(mapper, &done, 1) != 1)
		_exit(1);
}

// join_some joins those of the list whose flag is in flags. What is not permitted yet is left for the next pass.
static void join_some(struct join *joins, size_t count, int flags)
{
	for (size_t i = 0; i < count; i++) {
		if (joins[i].fd < 0 || !(joins[i].flag & flags))
			continue;
		if (setns(joins[i].fd, joins[i].flag) < 0) {
			if (errno == EPERM)
				continue;
			fail("join namespace %#x", joins[i].flag);
		}
		if (joins[i].flag == CLONE_NEWUSER && setresuid(0, 0, 0) < 0)
			fail("become root of the joined user namespace");
		close(joins[i].fd);
		joins[i].fd = -1;
	}
}

// join_namespaces takes the user namespace in the middle: before it we may still join what it does not own, after it
// we have the rights in what it owns.
static void join_namespaces(struct join *joins, size_t count)
{
	join_some(joins, count, ~CLONE_NEWUSER);
	join_some(joins, count, CLONE_NEWUSER);
	join_some(joins, count, ~CLONE_NEWUSER);
	for (size_t i = 0; i < count; i++) {
		errno = EPERM;
		if (joins[i].fd >= 0)
			fail("join namespace %#x", joins[i].flag);
	}
}

static void create_namespaces(const struct message *message, int mapper, int dumpable)
{
	if (message->clone_flags & CLONE_NEWUSER) {
		// By itself and mapped first: what is unshared together with an unmapped user namespace gets wrong owners.
		if (unshare(CLONE_NEWUSER) < 0)
			fail("create user namespace");
		// Files in /proc of a process that is not dumpable belong to root and would refuse the mapper.
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
		order(mapper, 'm');
		prctl(PR_SET_DUMPABLE, dumpable, 0, 0, 0);
		if (setresuid(0, 0, 0) < 0)
			fail("become root of the new user namespace");
	}
	if (unshare(message->clone_flags & ~CLONE_NEWUSER) < 0)
		fail("create namespaces %#x", message->clone_flags & ~CLONE_NEWUSER);
	if (message->time_offsets.data)
		order(mapper, 't');
}

// note_affinity names the first CPUs that the process may run on: what `exec` binds it to while it joins.
static void note_affinity(const struct message *message)
{
	cpu_set_t cpus;
	size_t mask = 0;

	if (!message->debug)
		return;
	CPU_ZERO(&cpus);
	if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
		return;
	for (size_t i = 0; i < sizeof(mask) * 8; i++)
		if (CPU_ISSET(i, &cpus))
			mask |= (size_t) 1 << i;
	note(message, "affinity: 0x%zx", mask);
}

static void become_init(const struct message *message)
{
	prctl(PR_SET_NAME, INIT_NAME, 0, 0, 0);
	if (setsid() < 0)
		fail("start session");
	if (setgid(0) < 0)
		fail("setgid 0");
	if (!message->rootless && message->setgroups && setgroups(0, NULL) < 0)
		fail("clear groups");
	if (setuid(0) < 0)
		fail("setuid 0");
}

static void __attribute__((constructor)) bootstrap(void)
{
	struct message message;
	const char *number = getenv(ENV_FD);
	int mapper = -1;

	// Go's threads begin in C, and the first thing a thread allocates there maps an arena of its own: three system calls
	// and two pages a thread, in a program that lives for milliseconds.
	mallopt(M_ARENA_MAX, 1);
	if (!number || !*number)
		return;
	report_fd = atoi(number);
	read_message(report_fd, &message);
	note(&message, "nsexec container setup");
	note_affinity(&message);
	if (message.oom_score_adj.data && write_proc(getpid(), "oom_score_adj", message.oom_score_adj) < 0
	    && !(message.rootless && errno == EACCES))
		fail("set oom_score_adj to %s", message.oom_score_adj.data);

	size_t count = message.join_count;
	open_joins(&message);
	// A process of the container must not be able to ptrace us, or to take our descriptors, while we are half inside.
	if (count > 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		fail("become undumpable");
	if ((message.clone_flags & CLONE_NEWUSER) || message.time_offsets.data)
		mapper = start_mapper(&message);
	note(&message, "join namespaces %s", count ? message.namespaces.data : "(none)");
	join_namespaces(message.joins, count);
	note(&message, "create namespaces %#x", message.clone_flags);
	create_namespaces(&message, mapper, count == 0);
	if (mapper >= 0)
		close(mapper);

	// A plain fork by the bare system call: CLONE_PARENT makes init a child of the Go process that waits for it, and
	// its number is given as seen from here, for the pid namespace of the caller itself never changes.
	long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, NULL, NULL, 0);
	if (pid < 0)
		fail("fork init");
	if (pid > 0) {
		struct record record = { .pid = (int32_t) pid };
		_exit(write(report_fd, &record, sizeof(record)) == sizeof(record) ? 0 : 1);
	}
	become_init(&message);
}
