"""Clients that put a service under load while it moves: services.py KIND ADDRESS, on the lab's client host.

Each connection is made once and kept. A line "look" is answered with "ok N SLOWEST" when every connection has had three more
answers, N being all answers and SLOWEST the longest anybody waited, in ms; a line "end" with the same once the load has ended and
everything that was acknowledged has been found. Anything else is said in a line that begins with "bad".
"""
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

PATIENCE = 40


class Load:
    """One client of several: setup() once for all, open() a connection, step() until something is acknowledged, verify() at the end."""

    clients = 4

    def __init__(self, address):
        self.address = address

    def setup(self):
        pass

    def verify(self, counts):
        pass


def check(holds, *said):
    if not holds:
        raise AssertionError(" ".join(map(str, said)))


class SQL(Load):
    """Transfers between accounts, each with a line of history: the sum stays, and what was committed is there."""

    accounts = 50

    def connect(self):
        raise NotImplementedError

    def setup(self):
        db = self.connect()
        cursor = db.cursor()
        cursor.execute("create table account (id int primary key, balance int not null)")
        cursor.execute("create table history (client int, n int, padding varchar(400), primary key (client, n))")
        for n in range(self.accounts):
            cursor.execute("insert into account values (%s, 0)", (n,))
        db.commit()
        db.close()

    def open(self, client):
        return self.connect()

    def step(self, db, client, n):
        cursor = db.cursor()
        one, other = sorted(random.sample(range(self.accounts), 2))
        amount = random.randrange(-100, 100)
        cursor.execute("update account set balance = balance - %s where id = %s", (amount, one))
        cursor.execute("update account set balance = balance + %s where id = %s", (amount, other))
        cursor.execute("insert into history values (%s, %s, %s)", (client, n, "x" * 300))
        db.commit()

    def verify(self, counts):
        db = self.connect()
        cursor = db.cursor()
        cursor.execute("select sum(balance) from account")
        total = cursor.fetchone()[0]
        check(total == 0, "the balances' sum is", total)
        for client, n in enumerate(counts):
            cursor.execute("select count(*), max(n) from history where client = %s", (client,))
            found = cursor.fetchone()
            check(found == (n, n), "client", client, "committed", n, "and found (count, last)", found)


class Postgres(SQL):
    def connect(self):
        import psycopg2

        return psycopg2.connect(host=self.address, user="postgres", dbname="postgres", connect_timeout=5)


class MariaDB(SQL):
    def connect(self):
        import pymysql

        return pymysql.connect(host=self.address, user="test", database="test", connect_timeout=5)


class Lines(Load):
    """A question and an answer of one line each; the answer has the number of questions on that connection."""

    port, question, answer = 7000, "check", "ok %d"

    def open(self, client):
        s = socket.create_connection((self.address, self.port), 5)
        s.settimeout(PATIENCE)
        return s, s.makefile("rb")

    def step(self, connection, client, n):
        s, answers = connection
        s.sendall(self.question.encode() + b"\r\n")
        said = answers.readline().decode().rstrip("\r\n")
        check(said == self.answer % n, "answer", n, "is", repr(said))
        time.sleep(0.002)


class Redis(Lines):
    """Lists that grow, with the file that has them appended to, and rewritten now and then."""

    port = 6379

    def ask(self, connection, *words):
        s, answers = connection
        s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
        return answers.readline().decode().rstrip("\r\n")

    def step(self, connection, client, n):
        said = self.ask(connection, "RPUSH", "list%d" % client, "value %d %s" % (n, "x" * 200))
        check(said == ":%d" % n, "answer", n, "is", repr(said))
        if client == 0 and n % 500 == 0:
            self.ask(connection, "BGREWRITEAOF")

    def verify(self, counts):
        connection = self.open(0)
        self.ask(connection, "CONFIG", "SET", "busy-reply-threshold", "5000")
        for _ in range(100):
            said = self.ask(connection, "DEBUG", "LOADAOF")
            if said == "+OK":
                break
            time.sleep(0.1)
        check(said == "+OK", "reading the appended file again says", said)
        for client, n in enumerate(counts):
            said = self.ask(connection, "LLEN", "list%d" % client)
            check(said == ":%d" % n, "client", client, "pushed", n, "and found", said)


class Memcached(Lines):
    port = 11211

    def step(self, connection, client, n):
        s, answers = connection
        value = ("%d %d " % (client, n)).encode() + b"x" * 500
        s.sendall(b"set key%d.%d 0 0 %d\r\n%s\r\n" % (client, n % 1000, len(value), value))
        check(answers.readline() == b"STORED\r\n", "not stored")
        s.sendall(b"get key%d.%d\r\n" % (client, n % 1000))
        head = answers.readline()
        check(head.startswith(b"VALUE"), "not found", head)
        check(answers.readline() == value + b"\r\n" and answers.readline() == b"END\r\n", "another value")


class HTTP(Load):
    """Small requests on connections that are kept, and a large download that is read slowly, again and again."""

    port, clients = 80, 5
    path, large = "/", "/large"

    def open(self, client):
        s = socket.create_connection((self.address, self.port), 5)
        s.settimeout(PATIENCE)
        return s, s.makefile("rb")

    def get(self, connection, path, slow=False):
        s, answers = connection
        s.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        status = answers.readline()
        length, chunked = 0, False
        while (line := answers.readline()) not in (b"\r\n", b""):
            name, _, value = line.lower().partition(b":")
            if name == b"content-length":
                length = int(value)
            if name == b"transfer-encoding":
                chunked = True
            check(name != b"connection" or b"close" not in value, "the server wants to close the connection")
        check(b" 200 " in status, "answered with", status)
        if chunked:
            body = b""
            while size := int(answers.readline(), 16):
                body += answers.read(size)
                answers.readline()
            answers.readline()
            return body
        digest, got, body = hashlib.sha256(), 0, b""
        while got < length:
            part = answers.read(min(65536, length - got))
            check(part, "the connection broke after", got, "of", length)
            got += len(part)
            digest.update(part)
            if slow:
                time.sleep(0.004)
            else:
                body += part
        return digest.hexdigest().encode() if slow else body

    def step(self, connection, client, n):
        if client == 0 and self.large:
            body = self.get(connection, self.large, slow=True)
            want = self.sum = getattr(self, "sum", None) or self.get(connection, self.large + ".sum").split()[0]
            check(body == want, "download", n, "has another checksum")
            return
        self.small(connection, client, n)
        time.sleep(0.002)

    def small(self, connection, client, n):
        body = self.get(connection, self.path)
        check(body.strip() == b"hello", "answer", n, "is", body[:80])


class Counter(HTTP):
    """Each answer is one more than the last one of that client; the program keeps the numbers."""

    large, clients = None, 4

    def small(self, connection, client, n):
        body = self.get(connection, "%s?client=%d" % (self.path, client)).decode().strip()
        check(body == "ok %d" % n, "answer", n, "is", body[:200])


class PHP(Counter):
    path = "/count.php"


class App(Counter):
    port = 8000


class SSH(Load):
    """A session of sshd, with a shell in it."""

    clients, terminal = 2, "-T"

    def open(self, client):
        socket.create_connection((self.address, 22), 5).close()  # it listens
        command = ["ssh", self.terminal, "-i", os.environ["STRANGER_KEY"], "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                   "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "root@" + self.address, "stty -echo 2>/dev/null; while read n; do echo ok $n; done"]
        p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return p

    def step(self, p, client, n):
        p.stdin.write(b"%d\n" % n)
        p.stdin.flush()
        said = p.stdout.readline().decode().strip()
        while said != "ok %d" % n and said == str(n):  # an echo
            said = p.stdout.readline().decode().strip()
        check(said == "ok %d" % n, "answer", n, "is", repr(said))
        time.sleep(0.002)


class Terminal(SSH):
    terminal = "-tt"


class Rabbit(Load):
    """Messages that are confirmed, and consumed in their order, by connections that stay."""

    def connect(self):
        import pika

        return pika.BlockingConnection(pika.ConnectionParameters(self.address, heartbeat=300, socket_timeout=30, stack_timeout=60, blocked_connection_timeout=300, credentials=pika.PlainCredentials("test", "test")))

    def open(self, client):
        channel = self.connect().channel()
        channel.queue_declare("q%d" % client, durable=True)
        channel.confirm_delivery()
        return channel

    def step(self, channel, client, n):
        import pika

        channel.basic_publish("", "q%d" % client, b"%d" % n, pika.BasicProperties(delivery_mode=2), mandatory=True)

    def verify(self, counts):
        channel = self.connect().channel()
        for client, n in enumerate(counts):
            for want in range(1, n + 1):
                method, _, body = channel.basic_get("q%d" % client, auto_ack=True)
                check(method is not None and int(body) == want, "message", want, "of", n, "is", body)


KINDS = {"postgres": Postgres, "mariadb": MariaDB, "redis": Redis, "memcached": Memcached, "http": HTTP, "php": PHP, "app": App,
         "lines": Lines, "ssh": SSH, "terminal": Terminal, "rabbitmq": Rabbit}


class Client(threading.Thread):
    def __init__(self, load, number):
        super().__init__(daemon=True)
        self.load, self.number = load, number
        self.count, self.slowest, self.error, self.stop = 0, 0.0, None, False
        self.connection = load.open(number)

    def run(self):
        try:
            while not self.stop:
                begun = time.monotonic()
                self.load.step(self.connection, self.number, self.count + 1)
                self.count += 1
                self.slowest = max(self.slowest, time.monotonic() - begun)
        except BaseException as error:
            self.error = error


def eventually(attempt, patience=100):
    """A service takes its time to listen."""
    end = time.monotonic() + patience
    while True:
        try:
            return attempt()
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def look(clients):
    before = [c.count for c in clients]
    end = time.monotonic() + PATIENCE
    for c, n in zip(clients, before):
        while c.count < n + 3 and not (isinstance(c.load, HTTP) and c.load.large and c.number == 0 and c.count > n):
            if c.error is not None:
                return "bad client %d after %d answers: %s %s" % (c.number, c.count, type(c.error).__name__, " ".join(str(c.error).split()))
            if time.monotonic() > end:
                return "bad client %d gets no answers any more, after %d" % (c.number, c.count)
            time.sleep(0.01)
    said = "ok %d %.0f" % (sum(c.count for c in clients), 1000 * max(c.slowest for c in clients))
    for c in clients:
        c.slowest = 0.0
    return said


def main(kind, address):
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    load = KINDS[kind](address)
    eventually(load.setup)
    clients = eventually(lambda: [Client(load, n) for n in range(load.clients)])
    for c in clients:
        c.start()
    print(look(clients), flush=True)
    for line in sys.stdin:
        said = look(clients)
        if line.strip() == "end" and said.startswith("ok"):
            for c in clients:
                c.stop = True
            for c in clients:
                c.join(PATIENCE)
            try:
                load.verify([c.count for c in clients])
            except Exception as error:
                said = "bad %s %s" % (type(error).__name__, " ".join(str(error).split()))
        print(said, flush=True)


main(*sys.argv[1:])
