perl /lines.pl &
mkdir -p /tmp/b && cd /tmp/b
for i in $(seq 20); do echo "#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int f$i(int n) { char b[100]; snprintf(b, sizeof b, \"%d\", n); return atoi(b) + $i; }"; done >/dev/null
for i in $(seq 20); do
	printf '#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nint f%d(int n) { char b[100]; snprintf(b, sizeof b, "%%d", n); return atoi(b) + %d; }\n' $i $i >f$i.c
done
{
	for i in $(seq 20); do echo "int f$i(int);"; done
	echo '#include <stdio.h>'
	echo 'int main(void) { int n = 0;'
	for i in $(seq 20); do echo "n = f$i(n);"; done
	echo 'printf("%d\n", n); return n != 210; }'
} >main.c
printf 'main: main.o %s\n\tgcc -flto -o $@ $^\n%%.o: %%.c\n\tgcc -O2 -g -pipe -c -o $@ $<\n' "$(for i in $(seq 20); do printf 'f%d.o ' $i; done)" >Makefile
n=0
while true; do
	rm -f ./*.o main
	if make -j 3 >log 2>&1 && ./main >/dev/null; then n=$((n + 1)) && echo $n >/tmp/loop.new && mv /tmp/loop.new /tmp/loop; else cat log >>/tmp/bad; echo failed >>/tmp/bad; fi
done
