-- Put a portion of the index in order, where somebody who knows an older schema has written: ids that stand in it are
-- those of executions, and each execution's id stands in it. The answer is where the next portion begins, or '' at the end.
local index = KEYS[1]
local from = ARGV[1]
local AT_ONCE = 500

if from == '' then
  if standing(index, 'i') == standing(index, 'a') then return '' end
  from = '[i'
end
sound(index)
local letter = string.sub(from, 2, 2)
local page = call('ZRANGEBYLEX', index, from, '(' .. letter .. '\255', 'LIMIT', 0, AT_ONCE)
local entries = {}
if letter == 'i' then
  local stamps = {}
  for i, member in ipairs(page) do stamps[i] = 'a' .. string.sub(member, -16) .. string.sub(member, 2, -18) end
  if #page > 0 then
    for i, score in ipairs(call('ZMSCORE', index, unpack(stamps))) do
      if not score then entries[#entries + 1] = page[i] end
    end
  end
  many('ZREM', index, entries)
else
  for _, member in ipairs(page) do put(entries, 0, id_entry(string.sub(member, 18), string.sub(member, 2, 17))) end
  many('ZADD', index, entries)
end
if #page == AT_ONCE then return '(' .. page[#page] end
return letter == 'i' and '[a' or ''
