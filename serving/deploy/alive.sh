#!/bin/sh
# Whether the server still answers: ends with 1 where it does not, for a liveness probe. /v2/health/live is not enough: a model whose
# process died or hangs is live and ready for Triton 2.51. A refusal for a full queue is an answer, or a probe would kill a server that is
# overloaded; any other 503 is none, such as that of a model that is gone. With priority 0 the question waits only for what runs already,
# four batches at most, and not behind what waits. What is excluded is no item; with it each request is a new one, which no cache has an answer to.
#   alive.sh [URL [SECONDS]]
url=${1:-http://127.0.0.1:8000} seconds=${2:-10}
asked=$(cat <<JSON
{"parameters": {"bertrec_priority": 0}, "inputs": [
  {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["a warm coat that is not bulky"]},
  {"name": "OPTIONS", "shape": [1, 1], "datatype": "BYTES", "data": ["{\"k\": 1, \"exclude\": [\"alive-$$-$(date +%s)\"]}"]}
]}
JSON
)
said=$(curl --silent --max-time "$seconds" --write-out '\n%{http_code}' --data "$asked" "$url/v2/models/recommend/infer")
status=$(printf '%s' "$said" | tail -n 1)
case $status:$said in
  200:* | 429:* | 503:*"Exceeds maximum queue size"*) ;;
  *) echo "recommend answers with HTTP $status (000: not within $seconds s)" >&2; exit 1 ;;
esac
