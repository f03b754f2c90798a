-- Gates as they are now: those that are named.
local limits = KEYS[1]
local now = clock()
local found = {}
for i = 1, #ARGV do
  local gate, line, slots, past = unpack(KEYS, 4 * i - 2, 4 * i + 1)
  local kind, limit, per, burst, arrival = unpack(call('HMGET', gate, 'k', 'l', 'p', 'b', 't'))
  if not kind then
    found[i] = false
  else
    -- The first of each priority has waited the longest of it.
    local oldest, from = '', '-'
    for _ = 1, 256 do
      local member = call('ZRANGE', line, from, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
      if not member then break end
      local since = string.sub(member, 11, 26)
      if oldest == '' or tonumber(since) < tonumber(oldest) then oldest = since end
      from = '(' .. string.sub(member, 1, 10) .. ':'
    end
    found[i] = {kind, limit, per, burst, arrival, call('HGET', limits, string.match(ARGV[i], '^[^|]*')) or '',
      call('ZRANGE', slots, 0, 99), call('ZCARD', slots), call('ZCARD', line), oldest,
      call('ZCOUNT', past, '(' .. int(now - per), '+inf')}
  end
end
return {now, found}
