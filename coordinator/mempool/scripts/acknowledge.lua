-- Strike a carried-out effect. KEYS: lease, outbox, head. ARGV: token, position.
local refusal = review_token(KEYS[1], ARGV[1])
if refusal then
  return refusal
end
redis.call('XACK', KEYS[2], 'coordinators', ARGV[2])
local struck = redis.call('XDEL', KEYS[2], ARGV[2])
if struck == 1 then
  redis.call('HINCRBY', KEYS[3], 'acknowledged', 1)
end
return {'ACKNOWLEDGED', struck}
