-- Acquire, renew or release the lease. KEYS: lease. ARGV: what, holder, token, ttl_ms.
-- A token is at least the server's time in ms, so that tokens do not decrease when the database had to be thrown away.
local lease, what, holder, token, ttl_ms = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local last = redis.call('HGET', lease, 'token') or '0'

if what == 'acquire' then
  local owner = redis.call('HGET', lease, 'holder') or ''
  local expires = tonumber(redis.call('HGET', lease, 'expires') or '0')
  if owner ~= holder and expires > now then
    return {'LEASE_HELD', owner, expires - now}
  end
  local next_token = string.format('%.0f', math.max(tonumber(last) + 1, now))
  redis.call('HSET', lease, 'holder', holder, 'token', next_token, 'expires', string.format('%.0f', now + ttl_ms))
  return {'ACQUIRED', next_token}
end
local refusal = review_token(lease, token)
if refusal then
  return refusal
end
redis.call('HSET', lease, 'expires', what == 'renew' and string.format('%.0f', now + ttl_ms) or '0')
return {'KEPT', token}
