# The guest of bench/guest.sh: runs fio on /dev/vda as it is told on its console, and answers with fio's JSON between DONE and END.
until [ -b /dev/vda ]; do usleep 10000; done
echo READY
while read -r arguments; do
  # shellcheck disable=SC2086
  if fio --filename=/dev/vda --direct=1 --ioengine=libaio --thread --output-format=json --output=/tmp/result $arguments >/tmp/words 2>&1; then
    echo DONE
    cat /tmp/result
  else
    echo FAIL
    cat /tmp/words /tmp/result
  fi
  echo END
done
