import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ThreadLocalRandom;

/**
 * A program in Java that can tell whether a move changed its memory: see strangers_test.go.
 *
 * Threads write objects, on the heap and beside it, each with what its content follows from, and drop old ones: code is
 * compiled, the collector moves objects and gives pages back. A line "check" is answered with "ok N", N counting the answers
 * on that connection, or with what is wrong.
 */
public final class Stranger {
    private static final int SLOTS = 300;

    private static final class Slot {
        final int version;
        final int[] words;
        final String text;
        final Map<String, Integer> table = new HashMap<>();

        Slot(int n, int version) {
            this.version = version;
            words = new int[new int[] {4, 100, 1000, 20000}[(n + version) & 3]];
            Random random = new Random(((long) n << 32) + version);
            for (int i = 0; i < words.length; i++) {
                words[i] = random.nextInt();
            }
            text = (n + "/" + version + "/").repeat(20);
            for (int i = 0; i < 20; i++) {
                table.put(text + i, i * version);
            }
        }

        boolean right(int n) {
            Random random = new Random(((long) n << 32) + version);
            for (int word : words) {
                if (word != random.nextInt()) {
                    return false;
                }
            }
            for (int i = 0; i < 20; i++) {
                if (!table.get(text + i).equals(i * version)) {
                    return false;
                }
            }
            return text.equals((n + "/" + version + "/").repeat(20));
        }
    }

    private static final class Writer extends Thread {
        private final Slot[] slots = new Slot[SLOTS];
        private final ByteBuffer outside = ByteBuffer.allocateDirect(4 << 20);
        private long sum;

        Writer() {
            setDaemon(true);
            for (int n = 0; n < SLOTS; n++) {
                slots[n] = new Slot(n, 0);
            }
        }

        @Override
        public void run() {
            descend(100);
        }

        private int descend(int depth) {
            if (depth > 0) {
                return descend(depth - 1) + 1;
            }
            while (true) {
                step();
                try {
                    Thread.sleep(1);
                } catch (InterruptedException e) {
                    throw new AssertionError(e);
                }
            }
        }

        private synchronized void step() {
            for (int i = 0; i < 5; i++) {
                int n = ThreadLocalRandom.current().nextInt(SLOTS);
                slots[n] = new Slot(n, slots[n].version + 1);
                int at = ThreadLocalRandom.current().nextInt(1 << 20) * 4;
                int had = outside.getInt(at);
                outside.putInt(at, had + n);
                sum += n;
            }
        }

        synchronized String check() {
            for (int n = 0; n < SLOTS; n++) {
                if (!slots[n].right(n)) {
                    return "object " + n + " is not of version " + slots[n].version;
                }
            }
            long got = 0;
            for (int at = 0; at < outside.capacity(); at += 4) {
                got += outside.getInt(at);
            }
            return got == sum ? "" : "the memory beside the heap adds up to " + got + ", not " + sum;
        }
    }

    public static void main(String[] args) throws Exception {
        Writer[] writers = new Writer[Integer.parseInt(args[0])];
        for (int i = 0; i < writers.length; i++) {
            writers[i] = new Writer();
            writers[i].start();
        }
        try (ServerSocket server = new ServerSocket(7000)) {
            while (true) {
                Socket socket = server.accept();
                Thread answers = new Thread(() -> answer(socket, writers));
                answers.setDaemon(true);
                answers.start();
            }
        }
    }

    private static void answer(Socket socket, Writer[] writers) {
        try (socket) {
            BufferedReader in = new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.US_ASCII));
            OutputStream out = socket.getOutputStream();
            for (int n = 1; in.readLine() != null; n++) {
                String wrong = writers[n % writers.length].check();
                out.write((wrong.isEmpty() ? "ok " + n + "\n" : "bad " + wrong + "\n").getBytes(StandardCharsets.US_ASCII));
            }
        } catch (java.io.IOException e) {
            System.err.println(e);
        }
    }
}
