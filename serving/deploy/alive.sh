#!/bin/sh
# Whether the server still answers: ends with 1 where it does not, for a liveness probe. /v2/health/live is not enough: a model whose
# process died or hangs is live and ready for Triton 2.51. A refusal is an answer, or a probe would kill a server that is overloaded.
# What is excluded is no item; with it each request is a new one, which no cache has an answer to.
#   alive.sh [URL [SECONDS]]
url=${1:-http://127.0.0.1:8000} seconds=${2:-5}
asked=$(cat <<JSON
{"inputs": [
  {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["a warm coat that is not bulky"]},
  {"name": "OPTIONS", "shape": [1, 1], "datatype": "BYTES", "data": ["{\"k\": 1, \"exclude\": [\"alive-$$-$(date +%s)\"]}"]}
]}
JSON
)
status=$(curl --silent --max-time "$seconds" --output /dev/null --write-out '%{http_code}' --data "$asked" "$url/v2/models/recommend/infer")
case $status in
  200 | 429 | 503) ;;
  *) echo "recommend answers with HTTP $status (000: not within $seconds s)" >&2; exit 1 ;;
esac
