-- Hand out effects: first what an earlier token left behind, then what this token has held for too long, then new ones.
-- KEYS: lease, outbox. ARGV: token, consumer, count, retry_ms, then the positions in the consumer's hand. What the
-- consumer holds without knowing it, because an answer was lost, is handed out again at once.
local GROUP, WINDOW = 'coordinators', 1024
local lease, outbox = KEYS[1], KEYS[2]
local token, consumer, count, retry_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local in_hand = {}
for i = 5, #ARGV do
  in_hand[ARGV[i]] = true
end

local refusal = review_token(lease, token)
if refusal then
  return refusal
end
local group = redis.pcall('XGROUP', 'CREATE', outbox, GROUP, '0', 'MKSTREAM')
if group['err'] and not string.find(group['err'], 'BUSYGROUP', 1, true) then
  return redis.error_reply(group['err'])
end

local claimed = {}
for _, pending in ipairs(redis.call('XPENDING', outbox, GROUP, '-', '+', WINDOW)) do
  if #claimed == count then
    break
  end
  local position, owner, idle, deliveries = unpack(pending)
  if owner ~= consumer or idle >= retry_ms or not in_hand[position] then
    local entry = redis.call('XCLAIM', outbox, GROUP, consumer, 0, position)[1]
    if entry then
      claimed[#claimed + 1] = {entry[1], entry[2], deliveries + 1}
    end
  end
end
if #claimed < count then
  local streams = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', count - #claimed, 'STREAMS', outbox, '>')
  for _, entry in ipairs(streams and streams[1][2] or {}) do
    claimed[#claimed + 1] = {entry[1], entry[2], 1}
  end
end
for _, other in ipairs(redis.call('XINFO', 'CONSUMERS', outbox, GROUP)) do
  -- name, <name>, pending, <n>, ...: an earlier token with nothing left is forgotten.
  if other[2] ~= consumer and other[4] == 0 then
    redis.call('XGROUP', 'DELCONSUMER', outbox, GROUP, other[2])
  end
end
local last = redis.call('XINFO', 'STREAM', outbox)
for i = 1, #last, 2 do
  if last[i] == 'last-generated-id' then
    return {'CLAIMED', last[i + 1], claimed}
  end
end
return redis.error_reply('ERR the outbox does not name its last entry')
