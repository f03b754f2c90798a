-- Delete a closed execution with all that is its own, if it ended before an instant with one of these statuses.
local x, history, unread, consumed, values, seen_ids, mine, watched, keys, closed, index = unpack(KEYS)
local id, before, statuses = unpack(ARGV)

local state, status, finished, created, prefixes, key =
  unpack(call('HMGET', x, 'st', 'su', 'fa', 'ca', 'ix', 'kf'))
if state ~= 'c' or tonumber(finished) >= tonumber(before) or not string.find(statuses, status, 1, true) then
  return 0
end
local has_key = key and call('HGET', keys, key) == id
sound(closed, index)

local stamp = wide(created) .. id
local entries = {'a' .. stamp, 's' .. status .. stamp}
for prefix in string.gmatch(prefixes, '[^\n]+') do entries[#entries + 1] = prefix .. stamp end
if has_key then call('HDEL', keys, key) end
call('ZREM', closed, status .. wide(finished) .. id)
call('ZREM', index, unpack(entries))
call('UNLINK', x, history, unread, consumed, values, seen_ids, mine, watched)
return 1
