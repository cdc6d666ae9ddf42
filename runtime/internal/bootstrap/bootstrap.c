// Everything a process must do before the Go runtime starts its first thread: setns(2) into a user, mount or time
// namespace is refused to a process with several threads, and only a forked child lives in a new pid namespace.
//
//   1 read one netlink-encoded message from the descriptor that ENV_FD names; without the variable: do nothing
//   2 set oom_score_adj while the process is still dumpable
//   3 open every namespace file, for after a join their paths may be out of reach
//   4 fork a mapper, which stays outside, when maps or time offsets must be written from there
//   5 join the given namespaces, then create the new ones
//   6 fork init as a child of our parent (CLONE_PARENT), report its pid, leave
//   7 init becomes leader of a session and root of its namespaces, and goes on into Go
//
// The answer on the same descriptor is one record: init's pid, or a pid below zero and a text.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/netlink.h>
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

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

// The same values stand in message.go.
#define ENV_FD "_MIGRATE_BOOTSTRAP"
#define MESSAGE_TYPE 0x4d47
#define MESSAGE_MAX (1 << 20)
#define RECORD_TEXT 252
#define MAX_JOINS 8

enum attribute {
	ATTR_CLONE_FLAGS = 1,
	ATTR_NAMESPACES,
	ATTR_UID_MAP,
	ATTR_GID_MAP,
	ATTR_NEWUIDMAP,
	ATTR_NEWGIDMAP,
	ATTR_SETGROUPS,
	ATTR_OOM_SCORE_ADJ,
	ATTR_ROOTLESS,
	ATTR_TIME_OFFSETS,
};

struct record {
	int32_t pid;
	char text[RECORD_TEXT];
};

struct text {
	const char *data; // ends with a NUL that len does not count; NULL: not sent
	size_t len;
};

struct message {
	uint32_t clone_flags;
	uint8_t setgroups, rootless;
	struct text namespaces, uid_map, gid_map, newuidmap, newgidmap, oom_score_adj, time_offsets;
};

struct join {
	int flag, fd;
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

static uint32_t attribute_u32(const char *payload, size_t len)
{
	uint32_t value;
	errno = 0;
	if (len != sizeof(value))
		fail("bootstrap message: number of %zu bytes", len);
	memcpy(&value, payload, sizeof(value));
	return value;
}

static struct text attribute_text(const char *payload, size_t len)
{
	errno = 0;
	if (len == 0 || payload[len - 1] != '\0')
		fail("bootstrap message: text without an end");
	return (struct text) { payload, len - 1 };
}

// read_message takes the message from fd. Its buffer is never freed: init lives on with a few hundred bytes more.
static void read_message(int fd, struct message *message)
{
	struct nlmsghdr header;
	read_full(fd, &header, sizeof(header));
	errno = 0;
	if (header.nlmsg_type != MESSAGE_TYPE || header.nlmsg_len < NLMSG_HDRLEN || header.nlmsg_len > MESSAGE_MAX)
		fail("bootstrap message: bad header: type %#x, length %u", header.nlmsg_type, header.nlmsg_len);
	size_t left = header.nlmsg_len - NLMSG_HDRLEN;
	char *at = malloc(left + 1);
	if (!at)
		fail("allocate bootstrap message");
	read_full(fd, at, left);

	while (left >= NLA_HDRLEN) {
		struct nlattr attribute;
		memcpy(&attribute, at, sizeof(attribute));
		errno = 0;
		if (attribute.nla_len < NLA_HDRLEN || attribute.nla_len > left)
			fail("bootstrap message: attribute %u has a length of %u", attribute.nla_type, attribute.nla_len);
		const char *payload = at + NLA_HDRLEN;
		size_t len = attribute.nla_len - NLA_HDRLEN;
		switch (attribute.nla_type) {
		case ATTR_CLONE_FLAGS: message->clone_flags = attribute_u32(payload, len); break;
		case ATTR_NAMESPACES: message->namespaces = attribute_text(payload, len); break;
		case ATTR_UID_MAP: message->uid_map = attribute_text(payload, len); break;
		case ATTR_GID_MAP: message->gid_map = attribute_text(payload, len); break;
		case ATTR_NEWUIDMAP: message->newuidmap = attribute_text(payload, len); break;
		case ATTR_NEWGIDMAP: message->newgidmap = attribute_text(payload, len); break;
		case ATTR_SETGROUPS: message->setgroups = attribute_u32(payload, len) != 0; break;
		case ATTR_OOM_SCORE_ADJ: message->oom_score_adj = attribute_text(payload, len); break;
		case ATTR_ROOTLESS: message->rootless = attribute_u32(payload, len) != 0; break;
		case ATTR_TIME_OFFSETS: message->time_offsets = attribute_text(payload, len); break;
		default: fail("bootstrap message: unknown attribute %u", attribute.nla_type);
		}
		size_t step = NLA_ALIGN(attribute.nla_len);
		if (step > left)
			step = left;
		at += step;
		left -= step;
	}
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

static int namespace_flag(const char *name, size_t len)
{
	static const struct { const char *name; int flag; } known[] = {
		{ "user", CLONE_NEWUSER }, { "mnt", CLONE_NEWNS }, { "pid", CLONE_NEWPID }, { "net", CLONE_NEWNET },
		{ "ipc", CLONE_NEWIPC }, { "uts", CLONE_NEWUTS }, { "cgroup", CLONE_NEWCGROUP }, { "time", CLONE_NEWTIME },
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strlen(known[i].name) == len && !strncmp(known[i].name, name, len))
			return known[i].flag;
	errno = 0;
	fail("bootstrap message: unknown namespace type %.*s", (int)len, name);
}

// open_joins opens the files of "type:path,type:path".
static size_t open_joins(struct text list, struct join *joins)
{
	size_t count = 0;
	const char *at = list.data;
	while (at && *at) {
		const char *end = strchrnul(at, ','), *colon = memchr(at, ':', end - at);
		errno = 0;
		if (!colon || count == MAX_JOINS)
			fail("bootstrap message: bad list of namespaces: %s", list.data);
		char *path = strndup(colon + 1, end - colon - 1);
		int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		if (fd < 0)
			fail("open namespace %s", path ? path : at);
		joins[count++] = (struct join) { namespace_flag(at, colon - at), fd };
		free(path);
		at = *end ? end + 1 : end;
	}
	return count;
}

// run_mapper execs newuidmap or newgidmap with the lines of the map as arguments.
static int run_mapper(const char *program, pid_t pid, struct text map)
{
	pid_t child = fork();
	if (child < 0)
		return -1;
	if (child == 0) {
		char *argv[3 * 340 + 3], number[16]; // the kernel takes at most 340 lines
		size_t argc = 0;
		snprintf(number, sizeof(number), "%d", pid);
		argv[argc++] = (char *)program;
		argv[argc++] = number;
		char *copy = strdup(map.data);
		for (char *word = strtok(copy, " \n"); word && argc < 3 * 340 + 2; word = strtok(NULL, " \n"))
			argv[argc++] = word;
		argv[argc] = NULL;
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
	fail("write %s (\"%.80s\")%s%s", name, map.data, program.data ? " by " : "", program.data ? program.data : "");
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

static void become_init(const struct message *message)
{
	prctl(PR_SET_NAME, "migrate:init", 0, 0, 0);
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
	struct message message = { 0 };
	struct join joins[MAX_JOINS];
	const char *number = getenv(ENV_FD);
	int mapper = -1;

	if (!number || !*number)
		return;
	report_fd = atoi(number);
	read_message(report_fd, &message);
	if (message.oom_score_adj.data && write_proc(getpid(), "oom_score_adj", message.oom_score_adj) < 0
	    && !(message.rootless && errno == EACCES))
		fail("set oom_score_adj to %s", message.oom_score_adj.data);

	size_t count = open_joins(message.namespaces, joins);
	// A process of the container must not be able to ptrace us, or to take our descriptors, while we are half inside.
	if (count > 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		fail("become undumpable");
	if ((message.clone_flags & CLONE_NEWUSER) || message.time_offsets.data)
		mapper = start_mapper(&message);
	join_namespaces(joins, count);
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
