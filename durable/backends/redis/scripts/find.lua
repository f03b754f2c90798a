-- Stamps (instant of creation and id) that stand in the index under all of these prefixes, and whose ids begin so: a page
-- of them, the newest first, and below what the next one begins; or in any order all that there are of few ids.
local index = KEYS[1]
local below, since, id_prefix, want = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local prefixes = {unpack(ARGV, 5)}
local MOST = 1024

-- Of some stamps, those that stand under these prefixes too, from one of them on.
local function under(stamps, first)
  for i = first, #prefixes do
    if #stamps == 0 then break end
    local members, kept = {}, {}
    for j, stamp in ipairs(stamps) do members[j] = prefixes[i] .. stamp end
    for j, score in ipairs(call('ZMSCORE', index, unpack(members))) do
      if score then kept[#kept + 1] = stamps[j] end
    end
    stamps = kept
  end
  return stamps
end

-- The shortest list leads; the others are asked.
local lead, least = 1, nil
if #prefixes > 1 or id_prefix ~= '' then
  for i, prefix in ipairs(prefixes) do
    local length = standing(index, prefix)
    if not least or length < least then lead, least = i, length end
  end
end
if id_prefix ~= '' then
  local ids = 'i' .. id_prefix
  local length = standing(index, ids)
  -- Ids are in no order of creation, so that all of them are read at once, or none. Where some are missing, as somebody
  -- who knows an older schema has written them, the others are read.
  if length < least and length <= MOST and standing(index, 'i') == standing(index, 'a') then
    local stamps = {}
    for _, member in ipairs(call('ZRANGEBYLEX', index, '[' .. ids, '(' .. ids .. '\255')) do
      if #member >= #ids + 17 then
        stamps[#stamps + 1] = string.sub(member, -16) .. string.sub(member, 2, -18)
      end
    end
    return {'', under(stamps, 1)}
  end
end
prefixes[1], prefixes[lead] = prefixes[lead], prefixes[1]
lead = prefixes[1]
local top = '(' .. lead .. (below == '' and '\255' or below)
local found = {}
for _ = 1, MOST / 128 do
  local page = call('ZREVRANGEBYLEX', index, top, '[' .. lead .. since, 'LIMIT', 0, 128)
  local stamps = {}
  for _, member in ipairs(page) do
    local stamp = string.sub(member, #lead + 1)
    if string.sub(stamp, 17, 16 + #id_prefix) == id_prefix then stamps[#stamps + 1] = stamp end
  end
  for _, stamp in ipairs(under(stamps, 2)) do
    found[#found + 1] = stamp
    if #found == want then return {stamp, found} end
  end
  if #page < 128 then return {'', found} end
  top = '(' .. page[#page]
end
return {string.sub(top, #lead + 2), found}
