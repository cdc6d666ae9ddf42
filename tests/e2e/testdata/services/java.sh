cat >/tmp/Server.java <<'JAVA'
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.Map;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicInteger;

public class Server {
    public static void main(String[] args) throws Exception {
        Map<String, AtomicInteger> counts = new ConcurrentHashMap<>();
        for (int i = 0; i < 300; i++) {
            Thread t = new Thread(() -> {
                for (int n = 0; ; n++) {
                    byte[] garbage = new byte[1000 + n % 5000];
                    try { Thread.sleep(20); } catch (InterruptedException e) { return; }
                }
            });
            t.setDaemon(true);
            t.start();
        }
        HttpServer s = HttpServer.create(new InetSocketAddress(8000), 0);
        s.setExecutor(Executors.newFixedThreadPool(50));
        s.createContext("/", e -> {
            String client = e.getRequestURI().getQuery();
            byte[] body = ("ok " + counts.computeIfAbsent(client, c -> new AtomicInteger()).incrementAndGet()).getBytes();
            e.sendResponseHeaders(200, body.length);
            e.getResponseBody().write(body);
            e.close();
        });
        s.start();
    }
}
JAVA
exec java -cp /tmp /tmp/Server.java
