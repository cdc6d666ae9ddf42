cat >/tmp/objects.py <<'PY'
"""Holds one of each kind of thing that the kernel keeps for a process, and looks at all of them at every question."""
import ctypes, errno, fcntl, mmap, os, pty, random, resource, select, signal, socket, socketserver, struct, subprocess, sys, termios, threading, time

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def call(what, *args):
    libc_call = getattr(libc, what)
    result = libc_call(*args)
    if result < 0:
        e = ctypes.get_errno()
        raise OSError(e, "%s: %s" % (what, os.strerror(e)))
    return result

def want(is_, should, what):
    if is_ != should:
        raise AssertionError("%s is %r, not %r" % (what, is_, should))

class Eventfd:
    def __init__(self):
        self.fd, self.sem = os.eventfd(7), os.eventfd(3, os.EFD_NONBLOCK)
    def check(self):
        want(os.eventfd_read(self.fd), 7, "the event's count"); os.eventfd_write(self.fd, 7)
        want(os.eventfd_read(self.sem), 3, "the other one"); os.eventfd_write(self.sem, 3)

class Epoll:
    """An epoll in an epoll, over a duplicate that is closed, edge-triggered and one-shot."""
    def __init__(self):
        self.outer, self.inner = select.epoll(), select.epoll()
        self.r, self.w = os.pipe()
        self.event = os.eventfd(0)
        self.inner.register(self.r, select.EPOLLIN)
        self.outer.register(self.inner.fileno(), select.EPOLLIN)
        self.inner.register(self.event, select.EPOLLIN | select.EPOLLET | select.EPOLLONESHOT)
    def check(self):
        want(self.outer.poll(0), [], "what is ready")
        os.write(self.w, b"x")
        want(self.outer.poll(1), [(self.inner.fileno(), select.EPOLLIN)], "what is ready in the nest")
        want(self.inner.poll(1), [(self.r, select.EPOLLIN)], "what is ready inside")
        os.read(self.r, 1)
        os.eventfd_write(self.event, 1)
        self.inner.modify(self.event, select.EPOLLIN | select.EPOLLET | select.EPOLLONESHOT)
        want(self.inner.poll(1), [(self.event, select.EPOLLIN)], "the one shot")
        want(self.inner.poll(0), [], "a second shot")
        os.eventfd_read(self.event)

class Timerfd:
    def __init__(self):
        self.fd = call("timerfd_create", 1, 0o4000)
        self.far = call("timerfd_create", 1, 0o4000)
        call("timerfd_settime", self.fd, 0, struct.pack("qqqq", 0, 20000000, 0, 20000000), None)
        call("timerfd_settime", self.far, 0, struct.pack("qqqq", 0, 0, 100000, 0), None)
        self.set = time.monotonic()
    def check(self):
        want(bool(select.select([self.fd], [], [], 1)[0]), True, "the timer's tick")
        os.read(self.fd, 8)
        left = ctypes.create_string_buffer(32)
        call("timerfd_gettime", self.far, left)
        _, _, s, n = struct.unpack("qqqq", left.raw)
        off = abs(s + n / 1e9 - (100000 - (time.monotonic() - self.set)))
        want(off < 2, True, "the far timer, off by %.3f s," % off)

class Signalfd:
    def __init__(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGRTMIN + 3])
        mask = struct.pack("Q", 1 << (signal.SIGUSR2 - 1))
        self.fd = call("signalfd", -1, mask, 0o4000)
        libc.sigqueue(os.getpid(), signal.SIGRTMIN + 3, ctypes.c_void_p(4711))
    def check(self):
        os.kill(os.getpid(), signal.SIGUSR2)
        want(bool(select.select([self.fd], [], [], 1)[0]), True, "a signal that was sent to itself")
        want(struct.unpack_from("I", os.read(self.fd, 128))[0], signal.SIGUSR2, "the signal")
        want(signal.SIGRTMIN + 3 in signal.sigpending(), True, "the pending signal")

class Timers:
    """A POSIX timer, an interval timer and an alarm far away."""
    def __init__(self):
        self.ticks = 0
        signal.signal(signal.SIGALRM, self.tick)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    def tick(self, *_):
        self.ticks += 1
    def check(self):
        before = self.ticks
        end = time.monotonic() + 2
        while self.ticks == before and time.monotonic() < end:
            time.sleep(0.01)
        want(self.ticks > before, True, "the interval timer's tick")

class Pidfd:
    def __init__(self):
        self.child = subprocess.Popen(["sleep", "100000"])
        self.fd = os.pidfd_open(self.child.pid)
        self.dead = subprocess.Popen(["true"])
        self.of_dead = os.pidfd_open(self.dead.pid)
        self.dead.wait()
    def check(self):
        signal.pidfd_send_signal(self.fd, 0)
        want(bool(select.select([self.of_dead], [], [], 0)[0]), True, "that the dead process is dead")
        want(bool(select.select([self.fd], [], [], 0)[0]), False, "that the child is dead")

class Memfd:
    def __init__(self):
        self.fd = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
        os.write(self.fd, b"sealed" * 10000)
        self.map = mmap.mmap(self.fd, 60000, mmap.MAP_SHARED, mmap.PROT_READ)
        fcntl.fcntl(self.fd, 1033, 0x2 | 0x4 | 0x1 | 0x10)
        self.open = os.memfd_create("open")
        os.ftruncate(self.open, 1 << 20)
        self.shared = mmap.mmap(self.open, 1 << 20)
        self.shared[500000:500005] = b"hello"
    def check(self):
        want(self.map[:12], b"sealedsealed", "the sealed file")
        want(fcntl.fcntl(self.fd, 1034), 0x17, "its seals")
        want(os.pread(self.open, 5, 500000), b"hello", "the open one")
        self.shared[9000:9002] = b"ab"
        want(os.pread(self.open, 2, 9000), b"ab", "what is written through the mapping")

class SysV:
    def __init__(self):
        self.shm = call("shmget", 0x1234, 100000, 0o1600)
        libc.shmat.restype = ctypes.c_void_p
        self.at = libc.shmat(self.shm, None, 0)
        ctypes.memmove(self.at + 70000, b"system five", 11)
        self.sem = call("semget", 0x1235, 3, 0o1600)
        call("semctl", self.sem, 1, 16, 42)
        self.msg = call("msgget", 0x1236, 0o1600)
        for n in range(5):
            call("msgsnd", self.msg, struct.pack("q", n + 1) + b"message %d" % n, 9, 0)
        self.undo = call("semget", 0x1237, 1, 0o1600)
        call("semctl", self.undo, 0, 16, 5)
    def check(self):
        want(ctypes.string_at(self.at + 70000, 11), b"system five", "shared memory")
        want(call("shmget", 0x1234, 0, 0), self.shm, "the key's segment")
        want(call("semctl", self.sem, 1, 12, 0), 42, "the semaphore")
        buffer = ctypes.create_string_buffer(100)
        call("msgrcv", self.msg, buffer, 50, 3, 0o4000)
        want(buffer.raw[8:17], b"message 2", "message 3")
        call("msgsnd", self.msg, buffer.raw[:17], 9, 0)

class Queue:
    """A POSIX message queue."""
    def __init__(self):
        rt = ctypes.CDLL("librt.so.1", use_errno=True)
        self.rt = rt
        self.fd = rt.mq_open(b"/queue", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600, None)
        if self.fd < 0: raise OSError(ctypes.get_errno(), "mq_open")
        rt.mq_send(self.fd, b"first", 5, 7)
    def check(self):
        buffer = ctypes.create_string_buffer(8192)
        want(self.rt.mq_receive(self.fd, buffer, 8192, None), 5, "the message's length")
        want(buffer.value, b"first", "the message")
        self.rt.mq_send(self.fd, b"first", 5, 7)

class Locks:
    """Each kind of lock on a file, asked for by another process."""
    prober = ("import fcntl,os,sys,struct\nf=os.open(sys.argv[1],os.O_RDWR)\ntry:\n"
              " if sys.argv[2]=='flock': fcntl.flock(f,fcntl.LOCK_EX|fcntl.LOCK_NB)\n"
              " else: fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB,10,5)\n"
              "except BlockingIOError: sys.exit(7)\n")
    def __init__(self):
        self.files = {}
        for kind in "flock", "posix", "ofd":
            f = os.open("/tmp/lock." + kind, os.O_RDWR | os.O_CREAT)
            os.write(f, b"x" * 100)
            if kind == "flock":
                fcntl.flock(f, fcntl.LOCK_EX)
            elif kind == "posix":
                fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)
            else:
                fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 5, 10, 0))
            self.files[kind] = f
        self.asked = 0
    def check(self):
        self.asked += 1
        if self.asked % 20 == 1:
            for kind in self.files:
                want(subprocess.run([sys.executable, "-S", "-c", self.prober, "/tmp/lock." + kind, kind]).returncode, 7, "an attempt at the lock " + kind)

class Lease:
    def __init__(self):
        self.f = os.open("/tmp/leased", os.O_RDWR | os.O_CREAT)
        fcntl.fcntl(self.f, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    def check(self):
        want(fcntl.fcntl(self.f, fcntl.F_GETLEASE), fcntl.F_WRLCK, "the lease")

class Netlink:
    def __init__(self):
        self.route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self.route.bind((0, 1))
        self.uevent = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15)
        self.uevent.bind((0, 0))
    def check(self):
        self.route.send(struct.pack("IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0))
        want(len(self.route.recv(65536)) > 100, True, "the list of links")
        while select.select([self.route], [], [], 0)[0]:
            self.route.recv(65536)

class Unix:
    """Pairs of each kind with something in them, an abstract name, and a file that was sent and not yet received."""
    def __init__(self):
        self.pairs = [socket.socketpair(socket.AF_UNIX, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)]
        for a, _ in self.pairs:
            a.send(b"in it")
        self.abstract = socket.socket(socket.AF_UNIX); self.abstract.bind("\0abstract"); self.abstract.listen()
        self.named = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); self.named.bind("/tmp/named.sock")
    def check(self):
        for a, b in self.pairs:
            want(b.recv(100), b"in it", "what was sent")
            a.send(b"in it")
        c = socket.socket(socket.AF_UNIX); c.connect("\0abstract"); s, _ = self.abstract.accept()
        c.send(b"x"); want(s.recv(1), b"x", "what came over the abstract name")
        d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); d.sendto(b"y", "/tmp/named.sock")
        want(self.named.recv(10), b"y", "what came over the name")
        c.close(); s.close(); d.close()

class Unheard:
    """A connection that is accepted some time after its question was sent, again and again."""
    def __init__(self):
        self.listener = socket.socket(socket.AF_UNIX); self.listener.bind("/tmp/unheard.sock"); self.listener.listen(5)
        self.n, self.wrong = 0, ""
        threading.Thread(target=self.ask, daemon=True).start()
    def ask(self):
        while True:
            c = socket.socket(socket.AF_UNIX); c.connect("/tmp/unheard.sock")
            c.sendall(b"question %d" % self.n)
            time.sleep(0.03)
            s, _ = self.listener.accept()
            if s.recv(100) != b"question %d" % self.n:
                self.wrong = "another question than %d" % self.n
            s.close(); c.close()
            self.n += 1
            time.sleep(0.005)
    def check(self):
        want(self.wrong, "", "what is wrong")

class Passed:
    """A descriptor on its way in a unix socket."""
    def __init__(self):
        self.a, self.b = socket.socketpair()
        r, self.w = os.pipe()
        socket.send_fds(self.a, [b"take it"], [r])
        os.close(r)
    def check(self):
        said, fds, _, _ = socket.recv_fds(self.b, 100, 1)
        want(said, b"take it", "what goes with the descriptor")
        os.write(self.w, b"z"); want(os.read(fds[0], 1), b"z", "what came through it")
        socket.send_fds(self.a, [b"take it"], fds)
        os.close(fds[0])

class Terminal:
    def __init__(self):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp("sh", ["sh", "-c", "stty -echo -icanon; while read x; do echo got $x; done"])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        self.n = 0
        time.sleep(0.5)
    def check(self):
        self.n += 1
        os.write(self.fd, b"%d\n" % self.n)
        said = b""
        while not said.endswith(b"got %d\r\n" % self.n):
            want(bool(select.select([self.fd], [], [], 5)[0]), True, "an answer in the terminal after %r" % said)
            said += os.read(self.fd, 1000)
        want(struct.unpack("HHHH", fcntl.ioctl(self.fd, termios.TIOCGWINSZ, b" " * 8))[:2], (33, 99), "the window's size")

class Inotify:
    def __init__(self):
        os.makedirs("/tmp/watched", exist_ok=True)
        self.fd = call("inotify_init1", 0o4000)
        self.wd = call("inotify_add_watch", self.fd, b"/tmp/watched", 0x100)
        self.n = 0
        self.lost = call("inotify_add_watch", self.fd, b"/tmp/watched", 0x100)
    def check(self):
        self.n += 1
        name = "/tmp/watched/%d" % self.n
        open(name, "w").close(); os.unlink(name)
        want(bool(select.select([self.fd], [], [], 1)[0]), True, "an event")
        said = os.read(self.fd, 4096)
        want(str(self.n).encode() in said, True, "the event's file in %r" % said)

class Files:
    """Directories, deleted ones, O_PATH, appending, offsets, a FIFO, /proc of itself."""
    def __init__(self):
        self.dir = os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY)
        self.path = os.open("/tmp/objects.py", os.O_PATH)
        self.append = os.open("/tmp/append", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.offset = os.open("/tmp/objects.py", os.O_RDONLY); os.lseek(self.offset, 3, 0)
        os.mkfifo("/tmp/fifo"); self.fifo = os.open("/tmp/fifo", os.O_RDWR | os.O_NONBLOCK); os.write(self.fifo, b"fifo")
        self.status = os.open("/proc/self/status", os.O_RDONLY)
        self.proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        self.sys = os.open("/sys", os.O_RDONLY | os.O_DIRECTORY)
        self.gone = os.open("/tmp/gone", os.O_RDWR | os.O_CREAT); os.write(self.gone, b"gone but here"); os.unlink("/tmp/gone")
        self.null, self.zero, self.random = open("/dev/null"), open("/dev/zero", "rb"), open("/dev/urandom", "rb", buffering=0)
        self.tmp = os.open("/tmp", os.O_RDWR | os.O_TMPFILE); os.write(self.tmp, b"never had a name")
        self.shm = os.open("/dev/shm/named", os.O_RDWR | os.O_CREAT); os.write(self.shm, b"posix shm")
    def check(self):
        want("objects.py" in os.listdir(self.dir), True, "the directory's file")
        want(os.readlink("/proc/self/fd/%d" % self.path), "/tmp/objects.py", "the path")
        os.write(self.append, b"x")
        want(os.lseek(self.offset, 0, 1), 3, "the offset")
        want(os.read(self.fifo, 10), b"fifo", "what is in the FIFO"); os.write(self.fifo, b"fifo")
        want(b"Pid:\t%d\n" % os.getpid() in os.pread(self.status, 4096, 0), True, "the pid in the status")
        want(os.pread(self.gone, 100, 0), b"gone but here", "the deleted file")
        want(os.pread(self.tmp, 100, 0), b"never had a name", "the file without a name")
        want(os.pread(self.shm, 100, 0), b"posix shm", "the file in /dev/shm")
        want(len(self.random.read(8)), 8, "random bytes")
        want("kernel" in os.listdir(self.sys), True, "/sys/kernel")

class Cwd:
    """A process in a directory that has been deleted."""
    def __init__(self):
        os.mkdir("/tmp/deleted")
        self.p = subprocess.Popen(["sh", "-c", "cd /tmp/deleted && rmdir /tmp/deleted && echo there && while read x; do echo $x; done"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.p.stdout.readline()
    def check(self):
        self.p.stdin.write(b"x\n"); self.p.stdin.flush()
        want(self.p.stdout.readline(), b"x\n", "an answer from a deleted directory")

class States:
    """A stopped process, a zombie, an orphan's family, a session of its own, priorities and affinity."""
    def __init__(self):
        self.stopped = subprocess.Popen(["sleep", "100000"]); os.kill(self.stopped.pid, signal.SIGSTOP)
        self.zombie = subprocess.Popen(["true"])
        self.session = subprocess.Popen(["sh", "-c", "sleep 100000 & exec sleep 100001"], start_new_session=True)
        self.nice = subprocess.Popen(["nice", "-n", "5", "sleep", "100000"])
        self.limits = subprocess.Popen(["sleep", "100000"], preexec_fn=lambda: (resource.setrlimit(resource.RLIMIT_CORE, (0, 0)), resource.setrlimit(resource.RLIMIT_NOFILE, (77, 78)), os.umask(0o123)))
        self.user = subprocess.Popen(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs", "--pdeathsig", "TERM", "sleep", "100000"])
        time.sleep(1)
        self.niceness = os.getpriority(os.PRIO_PROCESS, self.nice.pid)
    def stat(self, pid, key):
        for line in open("/proc/%d/status" % pid):
            k, _, v = line.partition(":\t")
            if k == key: return v.strip()
    def check(self):
        want(self.stat(self.stopped.pid, "State")[0], "T", "the stopped process' state")
        want(self.stat(self.zombie.pid, "State")[0], "Z", "the zombie's state")
        want(os.getsid(self.session.pid), self.session.pid, "the session")
        want(os.getpriority(os.PRIO_PROCESS, self.nice.pid), self.niceness, "niceness")
        want(resource.prlimit(self.limits.pid, resource.RLIMIT_NOFILE), (77, 78), "the limit")
        want(self.stat(self.limits.pid, "Umask"), "0123", "the umask")
        want((self.stat(self.user.pid, "Uid")[:5], self.stat(self.user.pid, "NoNewPrivs")), ("65534", "1"), "another user's process")

class Robust:
    """Pipes with an owner who is signalled, and sizes of their own."""
    def __init__(self):
        self.r, self.w = os.pipe()
        try:
            fcntl.fcntl(self.w, 1031, 1 << 17)
        except PermissionError:
            pass  # this user has too many pages in pipes
        self.size = fcntl.fcntl(self.w, 1032)
        os.write(self.w, b"p" * 60000)
        self.got = 0
        signal.signal(signal.SIGIO, self.io)
        self.a, self.b = socket.socketpair()
        fcntl.fcntl(self.a, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self.a, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    def io(self, *_):
        self.got += 1
    def check(self):
        want(fcntl.fcntl(self.w, 1032), self.size, "the pipe's size")
        want(os.read(self.r, 1000), b"p" * 1000, "what is in the pipe"); os.write(self.w, b"p" * 1000)
        want(fcntl.fcntl(self.a, fcntl.F_GETOWN), os.getpid(), "the owner")
        before = self.got
        self.b.send(b"x")
        end = time.monotonic() + 2
        while self.got == before and time.monotonic() < end:
            time.sleep(0.005)
        want(self.got > before, True, "the signal of the socket"); self.a.recv(10)

class UDP:
    def __init__(self):
        self.bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); self.bound.bind(("127.0.0.1", 9999))
        self.six = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        self.connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); self.connected.connect(("127.0.0.1", 9999))
        self.unbound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.reuse = [socket.socket() for _ in range(2)]
        for s in self.reuse:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(("0.0.0.0", 9998)); s.listen(7)
        self.loop = socket.create_connection(("127.0.0.1", 9998))
        ready = select.select(self.reuse, [], [], 5)[0]
        self.accepted = ready[0].accept()[0]
    def check(self):
        self.connected.send(b"u"); want(self.bound.recv(10), b"u", "the datagram")
        self.loop.send(b"t"); want(self.accepted.recv(10), b"t", "what came over TCP")

class Priority:
    """Memory that is locked, advised and protected."""
    def __init__(self):
        self.map = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.at = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.map[5000:5005] = b"locks"
        libc.mlock(ctypes.c_void_p(self.at), 65536)
        libc.madvise(ctypes.c_void_p(self.at + (1 << 19)), 1 << 18, 18)  # MADV_WIPEONFORK
        libc.madvise(ctypes.c_void_p(self.at), 1 << 18, 10)  # MADV_DONTFORK
        call("prctl", 29, 50000, 0, 0, 0)  # timer slack
        call("prctl", 36, 1, 0, 0, 0)  # child subreaper
    def check(self):
        want(self.map[5000:5005], b"locks", "locked memory")
        want(call("prctl", 30, 0, 0, 0, 0), 50000, "the timer slack")

KINDS = [Eventfd, Epoll, Timerfd, Signalfd, Timers, Pidfd, Memfd, SysV, Locks, Netlink, Unix, Unheard, Passed, Terminal, Inotify, Files, Cwd, States, Robust, UDP, Priority]
names = sys.argv[1:]
held = []
for kind in KINDS:
    if names and kind.__name__ not in names:
        continue
    held.append(kind())
lock = threading.Lock()

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for n, _ in enumerate(self.rfile, 1):
            with lock:
                wrong = ""
                for thing in held:
                    try:
                        thing.check()
                    except Exception as e:
                        wrong += " %s: %s %s;" % (type(thing).__name__, type(e).__name__, e)
            self.wfile.write(b"bad %s\n" % wrong.encode() if wrong else b"ok %d\n" % n)

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

threading.Thread(target=Server(("0.0.0.0", 7000), Handler).serve_forever, daemon=True).start()
while True:
    time.sleep(0.1)
PY
exec python3 /tmp/objects.py $OBJECTS
