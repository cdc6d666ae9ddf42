cat >/tmp/server.py <<'PY'
import asyncio, hashlib, random
words = {}
async def work():
    n = 0
    while True:
        n += 1
        words[n % 5000] = (n, hashlib.sha256(b"%d" % n).digest())
        if n % 50 == 0:
            await asyncio.sleep(0.001)
async def child():
    while True:
        p = await asyncio.create_subprocess_exec("sleep", "0.2")
        await p.wait()
async def serve(r, w):
    n = 0
    while await r.readline():
        n += 1
        bad = [i for i, d in random.sample(list(words.values()), 5) if d != hashlib.sha256(b"%d" % i).digest()]
        w.write(b"bad\n" if bad else b"ok %d\n" % n)
        await w.drain()
        if n % 20 == 0:
            await asyncio.get_running_loop().run_in_executor(None, sum, range(10000))
async def main():
    asyncio.create_task(work()); asyncio.create_task(child())
    async with await asyncio.start_server(serve, "0.0.0.0", 7000) as s:
        await s.serve_forever()
asyncio.run(main())
PY
exec python3 /tmp/server.py
