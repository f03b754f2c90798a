-- Put events of several names into one outbox, all of them at once.
local outbox, op = KEYS[1], ARGV[1]

local entries = {}
for i = 2, #ARGV do
  entries[i - 1] = call('XADD', outbox, '*', 'k', 'O', 'i', '', 'c', op .. ':' .. int(i - 2), 'd', ARGV[i])
end
return entries
