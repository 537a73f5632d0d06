-- wrk -s load.lua URL -- MEDIA_TYPE FOLDER COUNT: posts the files FOLDER/1 to FOLDER/COUNT in turn, again and again,
-- and prints one line of JSON at the end. Built once, so that the client does as little as it can for each request.
local requests, at = {}, 0

function init(args)
  local headers = { ["Content-Type"] = args[1] }
  for number = 1, tonumber(args[3]) do
    local file = assert(io.open(args[2] .. "/" .. number, "rb"))
    requests[number] = wrk.format("POST", nil, headers, file:read("*a"))
    file:close()
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "median_ms": %f, "p99_ms": %f, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
