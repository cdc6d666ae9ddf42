// A program for Node that can tell whether a move changed its memory: see strangers_test.go.
//
// The main thread and workers write objects, strings and buffers, each with what its content follows from, and drop old
// ones: V8 compiles, collects, and gives pages back. A line "check" is answered with "ok N", N counting the answers on that
// connection, or with what is wrong.
'use strict';
const { Worker, isMainThread, workerData } = require('node:worker_threads');
const { createHash } = require('node:crypto');
const net = require('node:net');

// word is the i-th of a content that follows from n and version; small enough to be compiled and inlined.
const word = (n, version, i) => (Math.imul(n + 1, 2654435761) ^ Math.imul(version + 1, 40503) ^ Math.imul(i, 2246822519)) >>> 0;

class Store {
  constructor(slots) {
    this.slots = Array.from({ length: slots }, (_, n) => this.make(n, 0));
  }

  make(n, version) {
    const words = new Uint32Array([16, 200, 1024, 20000][(n + version) % 4]);
    for (let i = 0; i < words.length; i++) words[i] = word(n, version, i);
    const text = `${n}/${version}/`.repeat(20);
    return { version, words, text, hash: createHash('sha1').update(text).digest('hex'), table: { [`k${version}`]: n, n } };
  }

  step() {
    const n = Math.floor(Math.random() * this.slots.length);
    this.slots[n] = this.make(n, this.slots[n].version + 1);
  }

  check() {
    for (const [n, slot] of this.slots.entries()) {
      for (let i = 0; i < slot.words.length; i++) {
        if (slot.words[i] !== word(n, slot.version, i)) return `word ${i} of ${n} is not of version ${slot.version}`;
      }
      if (slot.text !== `${n}/${slot.version}/`.repeat(20)) return `text ${n} is not of version ${slot.version}`;
      if (createHash('sha1').update(slot.text).digest('hex') !== slot.hash) return `hash ${n} is not of version ${slot.version}`;
      if (slot.table[`k${slot.version}`] !== n || slot.table.n !== n) return `table ${n} is not of version ${slot.version}`;
    }
    return '';
  }
}

// A module of WebAssembly (it adds two numbers), with memory of its own behind guard pages.
const adder = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 5, 3, 1, 0, 16,
  7, 7, 1, 3, 97, 100, 100, 0, 0, 10, 9, 1, 7, 0, 32, 0, 32, 1, 106, 11,
]))).exports.add;

if (isMainThread) {
  const states = Array.from({ length: Number(process.argv[2]) }, (_, n) => {
    const shared = new SharedArrayBuffer(8);
    new Worker(__filename, { workerData: { n, shared } }).on('error', (err) => { throw err; });
    return new Int32Array(shared);
  });
  const store = new Store(400);
  setInterval(() => { for (let i = 0; i < 5; i++) store.step(); }, 2);
  net.createServer((conn) => {
    let n = 0;
    let rest = '';
    conn.on('data', (data) => {
      const lines = (rest + data).split('\n');
      rest = lines.pop();
      for (const _ of lines) {
        n++;
        let wrong = store.check();
        states.forEach((state, i) => { if (Atomics.load(state, 1) !== 0) wrong ||= `worker ${i} has wrong memory`; });
        if (adder(n, 7) !== n + 7) wrong ||= 'a compiled module adds wrong';
        conn.write(wrong ? `bad ${wrong}\n` : `ok ${n}\n`);
      }
    });
    conn.on('error', () => {});
  }).listen(7000);
} else {
  const state = new Int32Array(workerData.shared);
  const store = new Store(200);
  setInterval(() => {
    for (let i = 0; i < 5; i++) store.step();
    if (Atomics.add(state, 0, 1) % 20 === 0 && store.check() !== '') Atomics.store(state, 1, 1);
  }, 4);
}
