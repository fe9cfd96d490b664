-- One transition: fencing token, request id, versions; then records, indexes, events, effects, head. Every check comes
-- before the first write, because the server does not undo a script that fails half way.
-- KEYS: lease, head, requests, events, outbox, kinds, then per write: record, index of all, index of open.
local FIXED_KEYS = 6
local lease, head, requests, events, outbox, kinds = unpack(KEYS, 1, FIXED_KEYS)
local at = 0
local function take()
  at = at + 1
  return ARGV[at]
end
local token, request_id, request_digest, known_sequence, touch = take(), take(), take(), take(), take()
local write_count, effect_count = tonumber(take()), tonumber(take())

local refusal = review_token(lease, token)
if refusal then
  return refusal
end

local sequence = tonumber(redis.call('HGET', head, 'sequence') or '0')
local chain = redis.call('HGET', head, 'chain') or string.rep('0', 40)
local last = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
if sequence ~= (last and tonumber(string.match(last[1], '^(%d+)-0$')) or 0) then
  return {'HEAD_DIFFERS', sequence}
end
if sequence < tonumber(known_sequence) then
  return {'ROLLED_BACK', sequence}
end

local earlier = redis.call('HGET', requests, request_id)
if earlier then
  local digest, at_sequence = string.match(earlier, '^(%x+):(%d+)$')
  if digest ~= request_digest then
    return {'REQUEST_REUSED'}
  end
  if touch == '1' then
    -- WAIT counts only what this connection wrote: without a write it would vouch for nothing.
    redis.call('HSET', head, 'replayed', request_id)
  end
  return {'REPLAY', at_sequence, redis.call('XRANGE', events, at_sequence .. '-0', at_sequence .. '-0')[1][2]}
end

local writes = {}
for i = 1, write_count do
  local key = FIXED_KEYS + 3 * i - 2
  local write = {
    record = KEYS[key], all = KEYS[key + 1], open = KEYS[key + 2],
    kind = take(), id = take(), expected = take(), version = take(), body = take(), terminal = take(),
    event = take(), event_body = take(), effects = take(), rest = take(), digest = take(),
  }
  local actual = redis.call('HGET', write.record, 'version') or '0'
  if actual ~= write.expected then
    return {'STALE_VERSION', i, actual}
  end
  writes[i] = write
end

local first = sequence + 1
for i = 1, effect_count do
  redis.call('XADD', outbox, first .. '-' .. i, 'request', request_id, 'id', take(), 'kind', take(), 'body', take(),
    'digest', take(), 'record_kind', writes[1].kind, 'record_id', writes[1].id)
end
local first_chain
for i = 1, write_count do
  local write = writes[i]
  sequence = sequence + 1
  local previous = chain
  chain = redis.sha1hex(previous .. ':' .. sequence .. ':' .. write.digest)
  first_chain = first_chain or chain
  redis.call('XADD', events, sequence .. '-0', 'request', request_id, 'kind', write.kind, 'id', write.id,
    'version', write.version, 'body', write.body, 'terminal', write.terminal, 'event', write.event,
    'event_body', write.event_body, 'effects', write.effects, 'chain', chain)
  redis.call('HSET', write.record, 'version', write.version, 'body', write.body, 'terminal', write.terminal,
    'rest', write.rest, 'sequence', sequence, 'previous', previous, 'chain', chain)
  redis.call('ZADD', kinds, 0, write.kind)
  redis.call('ZADD', write.all, 0, write.id)
  if write.terminal == '1' then
    redis.call('ZREM', write.open, write.id)
  else
    redis.call('ZADD', write.open, 0, write.id)
  end
end
redis.call('HSET', requests, request_id, request_digest .. ':' .. first)
redis.call('HSET', head, 'sequence', sequence, 'chain', chain)
if effect_count > 0 then
  redis.call('HINCRBY', head, 'requested', effect_count)
end
return {'APPLIED', first, first_chain, sequence}
