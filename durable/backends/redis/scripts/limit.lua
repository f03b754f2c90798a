-- Let the gates of a rule in a partition have another limit, and look at themselves at the next sweep. Without an epoch it
-- begins here: the letter that carries it to the other partitions is its epoch.
local limits, names, timers, outbox = unpack(KEYS)
local rule, limit, epoch, after = unpack(ARGV)
local known = call('HGET', limits, rule)
sound(names, timers)
call('XLEN', outbox)

local letter
if epoch == '' then
  local fields = {'k', 'G', 'o', 'm', 'i', rule, 's', '', 'p', '', 'n', '0', 'm', limit, 'g', ''}
  letter = {call('XADD', outbox, '*', unpack(fields)), fields}
  epoch = letter[1]
elseif known then
  local ms, seq = string.match(known, '^(%d+)-(%d+)')
  local its_ms, its_seq = string.match(epoch, '^(%d+)-(%d+)')
  ms, seq, its_ms, its_seq = tonumber(ms), tonumber(seq), tonumber(its_ms), tonumber(its_seq)
  if its_ms < ms or (its_ms == ms and its_seq < seq) then return {'', {}} end
end
call('HSET', limits, rule, epoch .. ' ' .. limit)
local from = after == '' and '[' .. rule .. '|' or '(' .. after
local found = call('ZRANGEBYLEX', names, from, '(' .. rule .. '|\255', 'LIMIT', 0, 256)
for _, name in ipairs(found) do call('ZADD', timers, 0, '\0' .. name) end
return {#found == 256 and found[256] or '', {letter}}
