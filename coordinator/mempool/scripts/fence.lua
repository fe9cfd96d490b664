-- Put in front of every script that writes. Returns the last token given out if `token` is not it, else nil.
local function find_newer_token(lease_key, token)
  local last = redis.call('HGET', lease_key, 'token') or '0'
  if last ~= token then
    return last
  end
  return nil
end
