cat >/tmp/server.rb <<'RB'
require "socket"
require "digest"
words = {}
Thread.new { n = 0; loop { n += 1; k = n % 5000; words[k] = [n, "w%d" % n, Digest::SHA256.hexdigest(n.to_s)]; sleep 0.001 if n % 50 == 0 } }
server = TCPServer.new(7000)
loop do
  Thread.new(server.accept) do |c|
    n = 0
    while c.gets
      n += 1
      bad = words.values.sample(20).reject { |i, w, d| w == "w#{i}" && d == Digest::SHA256.hexdigest(i.to_s) }
      c.puts(bad.empty? ? "ok #{n}" : "bad #{bad}")
      GC.start if n % 100 == 0
    end
  end
end
RB
exec ruby /tmp/server.rb
