-- Delete a closed execution with all that is its own, if it ended before an instant with one of these statuses.
local x, history, unread, consumed, values, seen_ids, mine, watched, seeking, keys, closed, index, groups, joins =
  unpack(KEYS)
local id, before, statuses = unpack(ARGV)

local state, status, finished, created, prefixes, key, group =
  unpack(call('HMGET', x, 'st', 'su', 'fa', 'ca', 'ix', 'kf', 'jg'))
if state ~= 'c' or tonumber(finished) >= tonumber(before) or not string.find(statuses, status, 1, true) then
  return 0
end
local has_key = key and call('HGET', keys, key) == id
sound(closed, index)
if group then
  -- What joined it is forgotten with it, a portion at a time.
  local is_pending = call('HGET', groups, group) == id
  local mine_of = call('ZRANGEBYLEX', joins, '[i' .. id .. '\0', '(i' .. id .. '\1', 'LIMIT', 0, 256)
  for _, member in ipairs(mine_of) do
    local op = string.sub(member, #id + 3)
    call('ZREMRANGEBYLEX', joins, '[o' .. op .. '\0', '(o' .. op .. '\1')
  end
  if #mine_of > 0 then call('ZREM', joins, unpack(mine_of)) end
  if #mine_of == 256 then return -1 end
  if is_pending then call('HDEL', groups, group) end
end

local stamp = wide(created) .. id
local entries = {'a' .. stamp, 's' .. status .. stamp, id_entry(id, created)}
for prefix in string.gmatch(prefixes, '[^\n]+') do entries[#entries + 1] = prefix .. stamp end
if has_key then call('HDEL', keys, key) end
call('ZREM', closed, status .. wide(finished) .. id)
call('ZREM', index, unpack(entries))
call('UNLINK', x, history, unread, consumed, values, seen_ids, mine, watched, seeking)
return 1
