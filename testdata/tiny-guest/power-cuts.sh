# The guest of PowerCutTests: says what the last loss of power left on /dev/vda, then works on it until the next one. Its parameters come
# from the kernel's command line: fresh, replay, options, journal, synchronous, delete. What it says, a line each:
#   FSCK WHO               the file system is clean, after WHO (e2fsck, kernel) replayed its journal
#   DATABASE …             what power-cuts.sql finds
#   WHOLE NAME, BROKEN NAME  a file whose name says its checksum
#   CHECKED                that was all; work begins
#   T N, F NAME, D N       durable now: transaction N, file NAME, the removal of file N
#   FAIL …                 what never happens
fail() {
  echo "FAIL $*"
  dmesg | tail -n 20
  poweroff -f
  sleep 1000
}

until [ -b /dev/vda ]; do usleep 10000; done
if [ "$fresh" = yes ]; then
  mkfs.ext4 -q /dev/vda || fail mkfs.ext4
else
  if [ "$replay" = kernel ]; then
    mount -t ext4 /dev/vda /mnt && umount /mnt || fail "the kernel's replay of the journal"
  else
    e2fsck -p /dev/vda >/tmp/fsck 2>&1
    code=$?
    [ $code -le 1 ] || fail "e2fsck -p: $code: $(cat /tmp/fsck)"
  fi
  e2fsck -fn /dev/vda >/tmp/fsck 2>&1 || fail "e2fsck -fn: $(cat /tmp/fsck)"
  echo "FSCK $replay"
fi

mount -t ext4 -o "$options" /dev/vda /mnt || fail mount
mkdir -p /mnt/files
sync /mnt
sqlite3 -bail /mnt/db </bin/power-cuts.sql >/tmp/database 2>&1 || fail "the database cannot be used: $(cat /tmp/database)"
cat /tmp/database
newest=$(awk '$1 == "DATABASE" { print $5 }' /tmp/database)
number=0
for file in /mnt/files/*-*; do
  [ -e "$file" ] || continue
  name=${file##*/}
  [ "${name%%-*}" -le $number ] || number=${name%%-*}
  case $(sha256sum <"$file") in
  "${name#*-} "*) echo "WHOLE $name" ;;
  *) echo "BROKEN $name" ;;
  esac
done
dmesg | grep -E 'EXT4-fs error|I/O error|JBD2.*[Ee]rror' && fail "the kernel met an error"
echo CHECKED

# Transactions that touch old pages and new ones; the sum of all balances is 0 after each.
awk -v n="$newest" -v journal="$journal" -v synchronous="$synchronous" 'BEGIN {
  printf ".output /dev/null\nPRAGMA journal_mode=%s;\nPRAGMA wal_autocheckpoint=100;\n.output stdout\nPRAGMA synchronous=%s;\n", journal, synchronous
  for (;;) {
    n++
    printf "BEGIN; INSERT INTO tx VALUES (%d, printf(\"%%d-%%.*c\", %d, 500 + %d * 7919 %% 6000, char(65 + %d %% 26)));", n, n, n, n
    printf "INSERT INTO account VALUES (%d, %d, %d) ON CONFLICT (id) DO UPDATE SET balance = balance + excluded.balance, last = excluded.last;", n * 31 % 97, n, n
    printf "INSERT INTO account VALUES (%d, %d, %d) ON CONFLICT (id) DO UPDATE SET balance = balance + excluded.balance, last = excluded.last;", n * 17 % 89, -n, n
    printf "DELETE FROM tx WHERE n <= %d; COMMIT; SELECT \"T %d\";\n", n - 300, n
  }
}' | { sqlite3 -bail /mnt/db || fail "a transaction failed"; } &

while :; do
  number=$((number + 1))
  head -c $(((number * 7919 % 90 + 1) * 1024 + number % 512)) /dev/urandom >/tmp/file
  name=$number-$(sha256sum </tmp/file | cut -c1-64)
  cat /tmp/file >/mnt/files/new && sync /mnt/files/new && mv /mnt/files/new "/mnt/files/$name" && sync /mnt/files || fail "a file cannot be written"
  echo "F $name"
  # What nobody made durable is in the way of what somebody did.
  cat /tmp/file /tmp/file >"/mnt/noise-$((number % 7))"
  mkdir -p "/mnt/folder-$((number % 5))/$number"
  [ $((number % 6)) != 0 ] || rm -rf "/mnt/noise-$((number % 7))" "/mnt/folder-$((number / 6 % 5))"
  [ $((number % 9)) != 0 ] || fstrim /mnt || fail fstrim
  old=${delete%%,*}
  [ -z "$old" ] || {
    rm -f /mnt/files/"$old"-* && sync /mnt/files || fail "a file cannot be removed"
    echo "D $old"
    delete=${delete#*,}
  }
done
