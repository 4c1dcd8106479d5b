#!/usr/bin/env bash
# System calls per packet of the data path's thread, sending and receiving gateway, over a link and a tunnel:
# TCP in bulk, and 64-byte UDP payloads at 30,000 packets/s. Two vng face to face in two network namespaces.
#   benches/system-calls.sh [path of vng]        as root; needs iperf3, jq, strace
# First untraced: the thread's reads and writes by /proc/TID/io, which knows read, readv, write and writev alone (the
# TUN device, and what is sent to a link). Then all calls by strace, which stops the thread at each: it keeps up with
# less, finds more waiting at each look, and so makes somewhat fewer calls per packet.
set -euo pipefail
cd "$(dirname "$0")/.."

vng=$(realpath "${1:-target/release/vng}")
seconds=5
files=$(mktemp -d)
near="vng-calls-$$-1" far="vng-calls-$$-2"

cleanup() {
  # Whatever still runs in the namespaces ends, then they go.
  for space in "$near" "$far"; do
    ip netns pids "$space" 2>/dev/null | xargs -r kill 2>/dev/null || true
  done
  wait || true
  for space in "$near" "$far"; do ip netns delete "$space" 2>/dev/null || true; done
  rm -rf "$files"
}
trap cleanup EXIT

in_space() { ip netns exec "$@"; }

# The configuration of gateway $1, whose peer is $2, over road $3.
configuration() {
  cat <<END
[vnet]
name          = "vnet-$1"
address_space = ["10.$1.0.0/16"]
device        = "vng0"
address       = ["10.$1.255.4/24"]
host_address  = ["10.$1.0.4/16"]
host_routes   = true

[control]
socket = "$files/$1.sock"

END
  if [ "$3" = tunnel ]; then
    cat <<END
[vpn]
sku              = "Unlimited"
private_key_file = "$files/$1.key"
listen_port      = 51820

[[vpn.site]]
name       = "far"
public_key = "$("$vng" pubkey "$files/$2.key")"
endpoint   = "192.0.2.$2:51820"
prefixes   = ["10.$2.0.0/16"]
probe      = false
END
  else
    cat <<END
[expressroute]
sku = "Unlimited"

[[expressroute.circuit]]
name     = "far"
model    = "colocated"
prefixes = ["10.$2.0.0/16"]
probe    = false

  [[expressroute.circuit.link]]
  name      = "primary"
  interface = "eth0"
  address   = ["172.16.0.$1/24"]
  neighbor  = ["172.16.0.$2"]
END
  fi
}

# Packets of gateway $1 so far at its virtual network: received and sent.
packets() {
  in_space "$2" "$vng" show counters --json --socket "$files/$1.sock" |
    jq '.received.vnet.packets + .sent.vnet.packets'
}

# Reads and writes of worker $1 so far.
reads_and_writes() {
  awk '/^sysc[rw]:/ { sum += $2 } END { print sum }' "/proc/${workers[$1]}/io"
}

# Counts the calls of both workers while traffic runs; one line a gateway.
count() { # road, traffic, iperf3 options
  local road=$1 traffic=$2 before after
  shift 2
  in_space "$far" iperf3 -s -1 -D -B 10.2.0.4 -I "$files/server.pid"
  until in_space "$far" ss -Hltn | grep -q :5201; do sleep 0.1; done
  ip netns exec "$near" iperf3 -c 10.2.0.4 -t $((2 * seconds + 3)) "$@" >"$files/iperf.txt" 2>&1 &
  local traffic_pid=$!
  sleep 1
  local io=() untraced=()
  io=("$(reads_and_writes 1)" "$(reads_and_writes 2)")
  before=("$(packets 1 "$near")" "$(packets 2 "$far")")
  sleep "$seconds"
  for n in 1 2; do
    io[n - 1]=$(($(reads_and_writes "$n") - io[n - 1]))
  done
  untraced=($(($(packets 1 "$near") - before[0])) $(($(packets 2 "$far") - before[1])))
  local tracers=()
  for n in 1 2; do
    strace -c -U calls,name -p "${workers[$n]}" -o "$files/calls.$n" 2>"$files/strace.$n" &
    tracers+=($!)
  done
  for n in 1 2; do until grep -q attached "$files/strace.$n"; do sleep 0.01; done; done
  before=("$(packets 1 "$near")" "$(packets 2 "$far")")
  sleep "$seconds"
  after=("$(packets 1 "$near")" "$(packets 2 "$far")")
  kill -INT "${tracers[@]}"
  wait "${tracers[@]}" || true
  wait "$traffic_pid" || cat "$files/iperf.txt" >&2
  for n in 1 2; do
    local moved=$((after[n - 1] - before[n - 1])) side=sending
    [ "$n" = 1 ] || side=receiving
    awk -v untraced="${untraced[n - 1]}" -v io="${io[n - 1]}" -v road="$road" -v traffic="$traffic" -v side="$side" -v moved="$moved" -v seconds="$seconds" '
      $1 ~ /^[0-9]+$/ && $2 != "total" { calls[$2] = $1; all += $1 }
      END {
        line = ""
        for (name in calls) if (calls[name] * 200 > all)
          line = line sprintf("%s%s %.3f", line == "" ? "" : ", ", name, calls[name] / moved)
        printf "| %s | %s | %s | %d | %.3f | %d | %.3f | %s |\n", road, traffic, side, untraced / seconds,
          io / untraced, moved / seconds, all / moved, line
      }' "$files/calls.$n"
  done
}

for n in 1 2; do
  "$vng" keygen --output "$files/$n.key" >/dev/null
done
ip netns add "$near"
ip netns add "$far"
ip -n "$near" link add eth0 type veth peer name eth0 netns "$far"
n=1
for space in "$near" "$far"; do
  in_space "$space" sysctl -qw net.ipv4.tcp_congestion_control=reno || true
  ip -n "$space" address add "192.0.2.$n/24" dev eth0
  ip -n "$space" link set dev lo up
  ip -n "$space" link set dev eth0 up
  n=2
done

echo "| path | traffic | gateway | packets/s | reads and writes per packet | packets/s under strace | all calls per packet | of these |"
echo "|---|---|---|---|---|---|---|---|"
for road in link tunnel; do
  workers=()
  gateways=()
  for n in 1 2; do
    space=$near
    [ "$n" = 1 ] || space=$far
    configuration "$n" $((3 - n)) "$road" >"$files/$n.toml"
    ip netns exec "$space" "$vng" run -c "$files/$n.toml" >"$files/out.$n" 2>"$files/log.$n" &
    gateways+=($!)
    until grep -qs ready "$files/out.$n"; do
      kill -0 $! || { cat "$files/log.$n" >&2; exit 1; }
      sleep 0.1
    done
    pid=$!
    workers[n]=$(grep -l '^worker-0$' /proc/"$pid"/task/*/comm | cut -d/ -f5)
  done
  until in_space "$near" ping -q -c 1 -W 1 -I 10.1.0.4 10.2.0.4 >/dev/null; do sleep 0.2; done
  count "$road" "TCP, 1 flow" -C reno
  count "$road" "UDP, 64 B" -u -l 64 -b 15360000
  kill "${gateways[@]}"
  wait "${gateways[@]}" || true
done
