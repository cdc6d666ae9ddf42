"""A program in Python that can tell whether a move changed its memory: see strangers_test.go.

Threads write objects of all sizes, each with what its content follows from, and drop old ones; the collector runs. A line
"check" is answered with "ok N", N counting the answers on that connection, or with what is wrong.
"""
import array
import ctypes
import gc
import mmap
import platform
import random
import socketserver
import sys
import threading
import time

SLOTS = 400


def content(n, version, size):
    return random.Random(n * 1000003 + version).randbytes(size)


class Writer(threading.Thread):
    """A thread with memory of its own, and a stack that is deep when the move comes."""

    def __init__(self, number):
        super().__init__(daemon=True)
        self.number = number
        self.lock = threading.Lock()
        self.slots = {}
        self.counts = array.array("Q", [0] * 65536)
        self.map = mmap.mmap(-1, 1 << 20)  # shared anonymous memory
        self.versions = [0] * 256
        self.writes = 0

    def run(self):
        self.descend(30)

    def descend(self, depth):
        local = (self.number, depth)
        if depth:
            self.descend(depth - 1)
        else:
            while True:
                self.step()
        assert local == (self.number, depth)

    def step(self):
        with self.lock:
            n = random.randrange(SLOTS)
            size = random.choice((8, 100, 600, 4096, 5000, 70000))
            version = self.slots[n][0] + 1 if n in self.slots else 0
            ring = [None, n]  # garbage that only the collector finds
            ring[0] = ring
            self.slots[n] = (version, content(n, version, size), {str(i): i * version for i in range(20)})
            self.counts[random.randrange(65536)] += 1
            self.writes += 1
            page = random.randrange(256)
            self.versions[page] += 1
            self.map[page * 4096 : page * 4096 + 64] = content(page, self.versions[page], 64)
        time.sleep(0.001)

    def check(self):
        with self.lock:
            for n, (version, data, table) in self.slots.items():
                if data != content(n, version, len(data)):
                    return f"thread {self.number}: object {n} is not its version {version}"
                if any(table[str(i)] != i * version for i in range(20)):
                    return f"thread {self.number}: table {n} is not its version {version}"
            if sum(self.counts) != self.writes:
                return f"thread {self.number}: {self.writes} writes, counted {sum(self.counts)}"
            for page, version in enumerate(self.versions):
                if version and self.map[page * 4096 : page * 4096 + 64] != content(page, version, 64):
                    return f"thread {self.number}: shared page {page} is not its version {version}"
        return ""


# A function of C that calls one of Python: libffi writes code for it at run time.
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))(
    lambda a, b: a[0] - b[0]
)
libc = ctypes.CDLL(None, use_errno=True)


def check_code():
    numbers = (ctypes.c_int * 32)(*random.sample(range(1000), 32))
    libc.qsort(numbers, 32, ctypes.sizeof(ctypes.c_int), compare)
    return "" if list(numbers) == sorted(numbers) else "code that was made at run time sorts wrong"


def call(what, *args):
    result = libc.syscall(*args) if what != "prctl" else libc.prctl(*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


class Buffer(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def hold(what):
    """Takes hold of something that makes memory hard to move, and keeps it."""
    memory = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if what == "io_uring":  # with a buffer that the kernel has pinned
        ring = call("io_uring_setup", 425, 8, ctypes.create_string_buffer(120))
        call("io_uring_register", 427, ring, 0, ctypes.byref(Buffer(address, 1 << 20)), 1)
    elif what == "userfaultfd":
        fd = call("userfaultfd", 323 if platform.machine() == "x86_64" else 282, 0o2000001)  # of its own faults only: that takes no right
        for request, words in ((0xC018AA3F, (0xAA, 0, 0)), (0xC020AA00, (address, 1 << 20, 1, 0))):
            if libc.ioctl(fd, ctypes.c_ulong(request), (ctypes.c_uint64 * len(words))(*words)) < 0:
                raise OSError(ctypes.get_errno(), "userfaultfd")
    elif what == "no core":  # nor a tracer without CAP_SYS_PTRACE
        call("prctl", 4, 0, 0, 0, 0)
    return memory


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for n, _ in enumerate(self.rfile, 1):
            wrong = check_code() or writers[n % len(writers)].check()
            if n % 16 == 0:
                gc.collect()
            self.wfile.write(f"bad {wrong}\n".encode() if wrong else f"ok {n}\n".encode())


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


held = [hold(what) for what in sys.argv[2:]]
writers = [Writer(n) for n in range(int(sys.argv[1]))]
for writer in writers:
    writer.start()
Server(("", 7000), Handler).serve_forever()
