cat >/tmp/server.js <<'JS'
const counts = {};
const server = require('http').createServer((q, a) => {
  const client = new URL(q.url, 'http://x').searchParams.get('client');
  counts[client] = (counts[client] || 0) + 1;
  const answer = `ok ${counts[client]}`;
  if (counts[client] % 7) a.end(answer);
  else require('crypto').pbkdf2('a', 'b', 1000, 32, 'sha256', () => a.end(answer));
});
server.keepAliveTimeout = 0;
server.listen(8000);
JS
exec node /tmp/server.js
