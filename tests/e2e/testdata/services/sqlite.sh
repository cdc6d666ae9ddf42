cat >/tmp/server.py <<'PY'
import socketserver, sqlite3, threading
def connect():
    db = sqlite3.connect("/var/data.db", timeout=60, isolation_level=None)
    db.execute("pragma journal_mode=wal")
    return db
connect().execute("create table t (client text, n int, padding text)")
class Serve(socketserver.StreamRequestHandler):
    def handle(self):
        db, n, name = connect(), 0, str(self.client_address)
        for _ in self.rfile:
            n += 1
            db.execute("insert into t values (?, ?, ?)", (name, n, "x" * 500))
            found = db.execute("select count(*) from t where client = ?", (name,)).fetchone()[0] if n % 100 == 0 else n
            if n % 500 == 0 and db.execute("pragma integrity_check").fetchone()[0] != "ok":
                found = "broken"
            self.wfile.write(b"ok %d\n" % found if found == n else b"bad %r\n" % found)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
Server(("0.0.0.0", 7000), Serve).serve_forever()
PY
exec python3 /tmp/server.py
