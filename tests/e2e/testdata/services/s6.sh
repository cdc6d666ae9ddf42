mkdir -p /tmp/service/lines /tmp/service/short /tmp/service/log
printf '#!/bin/sh\nexec perl /lines.pl\n' >/tmp/service/lines/run
printf '#!/bin/sh\nexec sleep 1\n' >/tmp/service/short/run
printf '#!/bin/sh\nwhile date; do sleep 0.2; done | s6-log n3 /tmp/logdir\n' >/tmp/service/log/run
chmod 755 /tmp/service/*/run
exec s6-svscan /tmp/service
