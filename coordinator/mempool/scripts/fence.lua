-- Put in front of every script that writes. Returns what to refuse with unless `token` is the last one given out. One
-- that was never given out was given by a store with a longer memory than this one.
local function review_token(lease_key, token)
  local last = redis.call('HGET', lease_key, 'token') or '0'
  if last == token then
    return nil
  end
  return {tonumber(last) < tonumber(token) and 'TOKEN_LOST' or 'STALE_LEASE', last}
end
