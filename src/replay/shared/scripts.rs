//! What is kept in Redis of a link, and the scripts that read and change it, each in one step.
//!
//! `winglet:KEY` is a hash: `owner`, the front end's name; `claim`, a number of the process that
//! claimed it, `-` once it is spent; `state`, which is `open`, `covered` or `spent`; `holders`, the
//! marks of the last four, the latest first; `charged`, bytes paid for; `opened` and `ended`, seconds
//! since the epoch; `back`, if its owner has given it back; and `free`, since when, by Redis' clock in
//! milliseconds, somebody else waits for it; `taken`, if somebody else has had it from an owner that was
//! gone. It expires when an entry of the table would.

use redis::{Cmd, FromRedisValue, ParsingError, Value};

use super::standing::{Inherited, Mark, Stage, Standing};
use super::{Claimed, Wish};
use crate::link::token::Used;
use crate::replay::grant::{HANDOVER, MAX_HOLDERS};
use crate::replay::line::{hex, unhex};
use crate::replay::{ClaimError, Key};

/// The state of a link that is used up.
pub(super) const SPENT: &str = "spent";

/// One key remembers that the shared state was not emptied since the first front end came, another
/// one for how many milliseconds (ARGV) everybody waits if it was. Answers with what is left of them.
pub(super) const ENTER: &str = "\
if redis.call('SET', 'winglet:since', 1, 'NX') then
  redis.call('SET', 'winglet:wait', 1, 'PX', ARGV[1])
end
return redis.call('PTTL', 'winglet:wait')";

/// KEYS: the link. ARGV: see [`claim`]. Answers with one of the words of [`Reply::result`] and what
/// stood there before. A link of which the table of its owner knows nothing has none: an answer was
/// lost, or a journal. Everything is looked at before the first write, since a full Redis refuses
/// that, and those who only ask need none.
const CLAIM: &str = "\
local node, process, mark, now, seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local bind, known, once, expired, look =
  ARGV[6] == '1', ARGV[7] == '1', ARGV[8] == '1', ARGV[9] == '1', ARGV[10] == '1'
local v = redis.call('HMGET', KEYS[1], 'owner', 'claim', 'state', 'holders', 'charged', 'opened', 'ended', 'back', 'free')
local owner, state, holders, back = v[1], v[3], v[4] or '', v[8]
local function answer(word, wait)
  return {word, owner or '', state or '', holders, v[5] or '', v[6] or '', v[7] or '', tostring(wait or 0)}
end
local function alive(name) return redis.call('EXISTS', 'winglet:node:' .. name) == 1 end
if not look and not alive(node) then return answer('absent') end
if not owner then
  if expired and not known then return answer('expired') end
  if not look then
    redis.call('HSET', KEYS[1], 'owner', node, 'claim', process, 'state', once and 'spent' or 'open',
      'holders', mark, 'charged', 0, 'opened', now, 'ended', 0)
    redis.call('EXPIRE', KEYS[1], seconds)
  end
  return answer('new')
end
local ours = owner == node
if state == 'spent' then
  return answer(once and ours and v[2] == process and not known and 'new' or 'spent')
end
if ours and known then
  if not look then
    redis.call('HSET', KEYS[1], 'claim', process)
    redis.call('HDEL', KEYS[1], 'back', 'free')
  end
  return answer('kept')
end
if not ours and not back and alive(owner) then return answer('elsewhere') end
local first = holders:match('^%S+') == mark
local strange = bind and holders ~= '' and not first
if strange then
  local held = mark ~= '' and (' ' .. holders .. ' '):find(' ' .. mark .. ' ', 1, true)
  if not held and state == 'covered' then return answer('stranger') end
  if not held and expired then return answer('expired') end
  if mark == '' then return answer('stranger') end
  strange = state == 'open'
  if strange then
    local time = redis.call('TIME')
    time = time[1] * 1000 + math.floor(time[2] / 1000)
    local wait = tonumber(ARGV[11]) - (v[9] and time - v[9] or 0)
    if wait > 0 then
      if not v[9] and not look then
        redis.call('HSET', KEYS[1], 'free', string.format('%.0f', time))
      end
      return answer('wait', wait)
    end
  end
end
if not look then
  local list = {}
  if mark ~= '' then list[1] = mark end
  for other in holders:gmatch('%S+') do
    if other ~= mark and #list < tonumber(ARGV[12]) then list[#list + 1] = other end
  end
  redis.call('HSET', KEYS[1], 'owner', node, 'claim', process, 'state', once and 'spent' or state,
    'holders', table.concat(list, ' '))
  redis.call('HDEL', KEYS[1], 'back', 'free')
  if strange then redis.call('HSET', KEYS[1], 'taken', 1) end
end
return answer(first and 'inherited' or 'taken')";

/// KEYS: links. ARGV: our name, the number of our process, for how many milliseconds others wait
/// for a link, and for each link what [`tell`] says of it. Writes that down where the link is ours or
/// nobody's; that a link is spent, anywhere, unless somebody who may lack bytes has taken it over
/// since. Answers for each with its owner and its state.
const TELL: &str = "\
local node, process, wait = ARGV[1], ARGV[2], ARGV[3]
local result = {}
for i, key in ipairs(KEYS) do
  local at = 4 + (i - 1) * 7
  local state, holders, charged, opened, ended, seconds, back = unpack(ARGV, at, at + 6)
  local now = redis.call('HMGET', key, 'owner', 'state', 'taken')
  local others = now[1] and now[1] ~= node
  if others and (state ~= 'spent' or now[3]) or now[2] == 'spent' and state ~= 'spent' then
    result[i] = {now[1], now[2]}
  elseif others then
    redis.call('HSET', key, 'state', 'spent')
    result[i] = {now[1], 'spent'}
  else
    redis.call('HSET', key, 'owner', node, 'claim', state == 'spent' and '-' or process,
      'state', state, 'holders', holders, 'charged', charged, 'opened', opened, 'ended', ended)
    redis.call('EXPIRE', key, seconds)
    if back == '' then
      redis.call('HDEL', key, 'back', 'free')
    else
      local time = redis.call('TIME')
      time = time[1] * 1000 + math.floor(time[2] / 1000) - (back == 'peek' and wait or 0)
      redis.call('HSET', key, 'back', 1, 'free', string.format('%.0f', time))
    end
    result[i] = {node, state}
  end
end
return result";

/// Who asks, for the scripts.
#[derive(Debug)]
pub(super) struct Process {
    /// What this front end is called.
    pub(super) node: String,
    /// Tells this process from others of the same name, before and at the same time.
    pub(super) number: String,
}

/// The key of a link. Only the hash of its `unique_id` leaves the machine.
fn link(key: &Key) -> String {
    format!("winglet:{}", hex(key))
}

/// The key that lives as long as the front end `node` does.
pub(super) fn heart(node: &str) -> String {
    format!("winglet:node:{node}")
}

/// Claims what `wish` wants for the holder with `mark`; if `look`, changes nothing.
pub(super) fn claim(process: &Process, wish: &Wish, mark: Option<Mark>, look: bool) -> Cmd {
    let mark = mark.as_ref().map(hex).unwrap_or_default();
    let mut command = redis::cmd("EVAL");
    command.arg(CLAIM).arg(1).arg(link(&wish.key)).arg(&process.node).arg(&process.number);
    command.arg(mark).arg(wish.now).arg(wish.seconds.max(1));
    for flag in [wish.bind, wish.known.is_some(), wish.once, wish.expired, look] {
        command.arg(u8::from(flag));
    }
    command.arg(wait()).arg(MAX_HOLDERS);
    command
}

/// How links are when they are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hands {
    /// They stay here.
    Ours,
    /// This front end stops, and gives them back.
    Back,
}

/// Tells the others at `now` how `links` are; `mark` says how holders are known.
pub(super) fn tell(
    process: &Process,
    links: &[(Key, Standing)],
    now: u64,
    hands: Hands,
    mark: impl Fn(crate::net::address::ClientKey) -> Mark,
) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(TELL).arg(links.len());
    for (key, _) in links {
        command.arg(link(key));
    }
    command.arg(&process.node).arg(&process.number).arg(wait());
    for (_, standing) in links {
        let (state, ended) = match standing.stage {
            Stage::Open => ("open", 0),
            Stage::Covered(ended) => ("covered", ended),
            Stage::Spent => (SPENT, 0),
        };
        let holders = standing.holders.iter().map(|holder| mark(*holder));
        let holders: Vec<String> =
            holders.chain(standing.former.iter().copied()).map(|mark| hex(&mark)).collect();
        let back = match hands {
            Hands::Ours => "",
            Hands::Back if standing.is_peek => "peek",
            Hands::Back => "held",
        };
        command.arg(state).arg(holders.join(" ")).arg(standing.charged).arg(standing.opened);
        command.arg(ended).arg(standing.end.saturating_sub(now).max(1)).arg(back);
    }
    command
}

/// For how long others wait for a link whose owner is gone, in milliseconds.
fn wait() -> u128 {
    HANDOVER.as_millis()
}

/// What [`CLAIM`] answers with.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    word: String,
    /// The owner's name; empty if there is none.
    pub(super) owner: String,
    state: String,
    holders: Vec<Mark>,
    charged: u64,
    opened: u64,
    ended: u64,
    /// Milliseconds until the link may be had.
    wait: u64,
}

impl FromRedisValue for Reply {
    fn from_redis_value(value: Value) -> Result<Reply, ParsingError> {
        let words: [String; 8] = FromRedisValue::from_redis_value(value)?;
        let [word, owner, state, holders, charged, opened, ended, wait] = words;
        let number = |text: &str| text.parse().unwrap_or(0);
        Ok(Reply {
            holders: holders.split_whitespace().filter_map(unhex).collect(),
            charged: number(&charged),
            opened: number(&opened),
            ended: number(&ended),
            wait: number(&wait),
            word,
            owner,
            state,
        })
    }
}

/// Where a link is, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere yet.
    Nobody,
    /// It is spent.
    Spent,
    /// At this front end, which is there.
    At(String),
    /// It was at this front end, which has stopped or is gone.
    Left(String),
}

impl Reply {
    /// Returns true if this front end is not there for the others, so that nothing was claimed:
    /// everything may have been lost.
    pub(super) fn is_absent(&self) -> bool {
        self.word == "absent"
    }

    /// What became of the claim.
    pub(super) fn result(self) -> Result<Claimed, ClaimError> {
        let by_holder = match self.word.as_str() {
            "new" => return Ok(Claimed::New),
            "kept" => return Ok(Claimed::Kept),
            "inherited" => true,
            "taken" => false,
            "elsewhere" => return Err(ClaimError::Elsewhere(self.owner.into())),
            "spent" => return Err(ClaimError::Used(Used::Spent)),
            "stranger" => return Err(ClaimError::Used(Used::OtherAddress)),
            "expired" => return Err(ClaimError::Expired),
            "wait" => {
                let seconds = u32::try_from(self.wait.div_ceil(1000)).unwrap_or(u32::MAX);
                return Err(ClaimError::InUse(seconds));
            }
            _ => return Err(ClaimError::Away),
        };
        let stage = if self.state == "covered" { Stage::Covered(self.ended) } else { Stage::Open };
        let Reply { holders, charged, opened, .. } = self;
        Ok(Claimed::Inherited(Inherited { stage, holders, by_holder, charged, opened }))
    }

    /// Where the link was before.
    pub(super) fn place(&self) -> Place {
        match self.word.as_str() {
            _ if self.owner.is_empty() => Place::Nobody,
            _ if self.state == SPENT => Place::Spent,
            "kept" | "elsewhere" => Place::At(self.owner.clone()),
            _ => Place::Left(self.owner.clone()),
        }
    }
}
