cat >/tmp/app.py <<'PY'
import fcntl, urllib.parse
def app(environ, start):
    client = urllib.parse.parse_qs(environ["QUERY_STRING"])["client"][0]
    with open("/tmp/count" + client, "a+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        f.seek(0)
        n = int(f.read() or 0) + 1
        f.truncate(0)
        f.write(str(n))
    body = b"ok %d" % n
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]
PY
cd /tmp && exec gunicorn -w 3 -k gthread --threads 4 --keep-alive 300 -b 0.0.0.0:8000 app:app
