import { createClient } from "/auth/auth.js";

// The tokens are in HttpOnly cookies, which the browser sends with each request.
// The client of package auth refreshes them, and says when the session ends.

const auth = createClient();
const $ = (id) => document.getElementById(id);
const program = "Ratchet " + document.documentElement.dataset.program;
const tabs = new BroadcastChannel("ratchet");

let me = null;          // data of /api/me while signed in
let known = false;      // whether the page knows if the user is signed in
let lifetime = 0;       // lifetime of the access token, in seconds
let deadline = 0;       // when it expires, by the clock of this machine
let ahead = 0;          // how far the clock of the server is ahead, in milliseconds
let stream = null;      // the EventSource

// ---- requests

// send waits for the response to a request, and reads it.
async function send(request) {
  const begin = performance.now();
  let response, text;
  try {
    response = await request;
    text = await response.text();
  } catch (err) {
    if (answered < begin) answers(false); // unless the server has answered another request since
    throw err;
  }
  answers(response.status !== 502 && response.status !== 504); // from a proxy whose server does not answer
  let data = {};
  try { data = text ? JSON.parse(text) : {}; } catch { /* not JSON, for example the error page of a proxy */ }
  return { status: response.status, ok: response.ok, data };
}

// call sends a request that needs a session.
function call(method, path) {
  return send(auth.fetch(path, { method, cache: "no-store", signal: AbortSignal.timeout(10000) }));
}

async function refresh(options) {
  const { status } = await send(auth.refresh(options));
  if (status >= 500) throw new Error("refresh failed with status " + status);
  return status;
}

// setExpiry stores when the access token expires.
function setExpiry(seconds, total = seconds) {
  lifetime = Math.max(total, seconds, 1);
  deadline = Date.now() + seconds * 1000;
  showLeft();
}

auth.addEventListener("refreshed", ({ detail }) => {
  if (!me) return;
  setExpiry(detail.expires_in);
  $("until").textContent = moment(Date.now() + ahead + detail.refresh_expires_in * 1000);
  log("Access token refreshed" + (detail.otherTab ? " by another tab" : ""));
  if (!detail.otherTab) listDevices();
});

// race refreshes in all tabs at once: they all present the same refresh token. Each
// tab reports its result to the one that started the race.
let raced = [];
async function race() {
  raced = [];
  const { sid } = me;
  tabs.postMessage({ type: "race", sid });
  const own = await refresh({ force: true });
  await new Promise((done) => setTimeout(done, 1000)); // for the results of the other tabs
  if (own !== 200) return log("The refresh failed with status " + own);
  if (!raced.length) return log("Only this tab refreshed. Open this page in a second tab first.");
  const refused = raced.filter((status) => status !== 200).length;
  log((raced.length + 1) + " tabs refreshed at once. " + (refused ? refused + " failed." : "All are still signed in."));
  listDevices();
}

async function joinRace() {
  const status = await refresh({ force: true }).catch(() => 0);
  tabs.postMessage({ type: "raced", status });
  if (status === 200) log("Refreshed at once with another tab");
}

tabs.onmessage = ({ data }) => {
  if (data.type === "race" && me?.sid === data.sid) joinRace();
  if (data.type === "raced") raced.push(data.status);
};

// ---- whether the server answers

const patience = 4;     // seconds without an event of the stream
let down = false;       // whether the server does not answer
let answered = 0;       // when it answered last
let silence = 0;        // seconds since the last event of the stream
let paused = false;     // whether the page is hidden and has closed its stream
let trying = false;     // whether a request that reconnects is in progress
let leaving = false;    // whether a sign-out is in progress
let pause = 0;          // seconds until the next attempt

function answers(yes) {
  if (yes) {
    silence = 0;
    answered = performance.now();
  }
  if (down !== yes) return;
  down = !yes;
  $("offline").hidden = yes;
  if (down) {
    live("off", "Not connected");
    log("Connection lost");
  } else {
    log("Connected again");
  }
}

// watch runs every second. It notices a server that is silent although its
// connection is open, and reconnects.
async function watch() {
  if (me && !paused && stream.readyState !== EventSource.CLOSED && ++silence > patience) {
    stream.close();
    answers(false);
  }
  const lacking = me ? !paused && stream.readyState === EventSource.CLOSED : down || !known;
  if (!lacking || trying || leaving || --pause > 0) return;
  trying = true;
  await (me ? resume(stream) : start());
  trying = false;
  pause = 2;
}

// ---- server-sent events

function listen() {
  stream?.close();
  stream = new EventSource("/api/events");
  silence = 0;
  const current = stream;
  current.addEventListener("tick", (e) => {
    if (stream !== current) return;
    answers(true);
    const { time } = JSON.parse(e.data);
    ahead = new Date(time) - Date.now();
    live("on", "Server time " + clock(time));
  });
  current.addEventListener("end", (e) => {
    current.close(); // watch reconnects
    if (stream !== current) return;
    const { reason } = JSON.parse(e.data);
    live("", "Disconnected: " + reason);
    pause = reason === "shutdown" ? 1 : 0;
    watch();
  });
  current.onerror = () => {
    current.close();
    if (stream === current) live(down ? "off" : "", down ? "Not connected" : "Reconnecting…");
  };
}

// resume reconnects the stream if the session is still valid. If another tab has
// signed in since, the cookies belong to a new session, which the page then shows.
async function resume(old) {
  const result = await call("GET", "/api/me").catch(() => null);
  if (!me || stream !== old || !result?.ok) return; // watch tries again
  if (result.data.sid !== me.sid) {
    log("Signed in again in another tab");
    enter(result.data);
  } else {
    show(result.data);
    listen();
  }
}

// Browsers limit the number of connections to a host, so a hidden page closes its
// stream after 20 seconds.
let hiding = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) {
    hiding = setTimeout(() => {
      paused = true;
      stream?.close();
      live("", "Paused");
    }, 20000);
  } else if (paused) {
    paused = false;
    pause = 0;
    watch();
  }
});

// ---- signing in and out

async function start() {
  const result = await call("GET", "/api/me").catch(() => null);
  if (result?.ok) enter(result.data); // without a result, watch tries again
  else if (result && result.status !== 400 && result.status !== 401) notice("The server reports an error. Trying again.");
}

auth.addEventListener("signed-in", ({ detail }) => { if (detail.otherTab) start(); });

// The session has ended, or nobody was signed in. After a sign-out by this page,
// leave shows a message of its own.
auth.addEventListener("signed-out", ({ detail }) => {
  if (leaving) return;
  answers(true); // the server has said so, maybe to another tab
  signedOut(!me && detail.error === "missing_token" ? "" : whyEnded(detail.reason));
});

function enter(data) {
  const same = me?.sid === data.sid;
  show(data);
  if (same) return;
  notice("");
  view("in");
  log("Signed in as " + data.username);
  $("devices").replaceChildren();
  listed = false;
  listen();
  listDevices();
}

// whyEnded describes the end of a session to its user. The server knows the reason
// for a while only.
function whyEnded(reason) {
  switch (reason) {
    case "reuse":
      return "Somebody else used this sign-in. The server received a refresh token that had already been replaced, so it has ended the session for everybody. Sign in again.";
    case "logout":
      return "You signed out in another tab.";
    case "replaced":
      return "A new sign-in in this browser has replaced this session. Sign in again.";
    case "evicted":
      return "You have signed in on too many devices. The session that was not used for the longest time, this one, has ended. Sign in again.";
    case "user":
      return "This user was disabled or deleted.";
    case "revoked":
      return "You were signed out from another device.";
  }
  return "Your session has ended. Sign in again.";
}

function signedOut(message) {
  me = null;
  stream?.close();
  stream = null;
  view("out");
  $("devices").replaceChildren();
  $("response").textContent = "Choose a request to see its response.";
  notice(message);
  if (message) log(message);
  document.title = (message ? "Signed out · " : "") + program;
}

$("login").addEventListener("submit", async (e) => {
  e.preventDefault();
  const form = e.target;
  const button = form.querySelector("button");
  if (button.ariaDisabled) return;
  const { login, password, device } = Object.fromEntries(new FormData(form));
  button.ariaDisabled = "true";
  $("login-error").textContent = "";
  try {
    const result = await send(auth.login({ login, password, device }));
    if (!result.ok) throw new Error(result.status === 401 ? "Incorrect user name or password." : result.data.error_description ?? "The server does not answer.");
    await start();
    if (!me) throw new Error("The browser did not store the cookies. Unless the server has a loopback address, this page needs HTTPS.");
    form.reset();
  } catch (err) {
    $("login-error").textContent = down ? "The server does not answer." : err.message;
    form.elements.password.select();
  } finally {
    button.ariaDisabled = null;
  }
});

for (const button of document.querySelectorAll("[data-fill]")) {
  button.addEventListener("click", () => {
    const fields = $("login").elements;
    fields.login.value = button.dataset.fill;
    fields.password.value = button.dataset.password;
    fields.password.focus();
  });
}

// act calls f when the button is clicked, once at a time. The button is not disabled
// meanwhile, because it would lose the focus.
function act(button, f) {
  button.addEventListener("click", async () => {
    if (button.ariaDisabled) return;
    button.ariaDisabled = "true";
    try {
      await f();
    } catch {
      log(down ? "The server does not answer" : "The request failed. Try again.");
    } finally {
      button.ariaDisabled = null;
    }
  });
}

async function leave(options, message) {
  leaving = true;
  stream.close(); // its event would say that the session has ended
  const result = await send(auth.logout(options)).finally(() => { leaving = false; }); // if it fails, watch reconnects
  if (!me) return;
  if (!result.ok) return log("Sign-out failed: " + (result.data.error_description ?? result.status));
  signedOut(message);
}

act($("refresh"), () => refresh());
act($("race"), race);
act($("logout"), () => leave({}, "You are signed out."));
act($("logout-all"), () => leave({ all: true }, "You are signed out on all devices."));
act($("logout-others"), async () => {
  for (const row of $("devices").children) endedHere.add(row.dataset.id);
  if ((await send(auth.logout({ others: true }))).ok) log("Signed out all other devices");
  await listDevices();
});
act($("copy"), async () => {
  try {
    await navigator.clipboard.writeText($("commands").textContent);
    log("Copied the commands");
  } catch { // not allowed, or no secure context
    getSelection().selectAllChildren($("commands"));
    log("Selected the commands. Copy them with the keyboard.");
  }
});

// ---- rendering

// view shows the elements for the state "in" (signed in) or "out". If the focused
// element is hidden, the focus moves to the heading or the first field.
function view(which) {
  const shown = known && !$("main").classList.contains("out") ? "in" : "out";
  const held = document.activeElement.closest("[data-when]");
  const first = !known;
  known = true;
  $("main").classList.toggle("out", which === "out");
  for (const part of document.querySelectorAll("[data-when]")) part.hidden = part.dataset.when !== which;
  $("live").hidden = which === "out";
  if (which === "in" && held?.hidden) $("username").focus();
  if (which === "out" && (first || shown === "in")) $("login").elements.login.focus();
}

function show(data) {
  const same = me?.sid === data.sid;
  me = data;
  document.title = data.username + " · " + program;
  $("username").textContent = data.username;
  $("roles").replaceChildren(...(data.roles ?? []).map((role) => element("span", "tag", role)));
  $("since").textContent = moment(data.auth_time);
  $("until").textContent = moment(data.session_expires_at);
  $("latest").textContent = moment(data.absolute_expires_at);
  $("sid").textContent = data.sid;
  setExpiry(data.expires_in, same ? lifetime : data.expires_in);
}

function showLeft() {
  if (!me) return;
  const left = Math.max(0, Math.ceil((deadline - Date.now()) / 1000));
  $("left").textContent = left === 0 ? "Expired" : left < 100 ? left + " s" : Math.floor(left / 60) + ":" + String(left % 60).padStart(2, "0");
  $("left").parentElement.classList.toggle("expired", left === 0);
  $("left-text").textContent = left === 0 ? "access token" : "until the access\ntoken expires";
  $("ring").style.strokeDashoffset = 100 - 100 * Math.min(1, left / lifetime);
  $("ring").style.opacity = left === 0 ? 0 : 1;
}

let listed = false;            // whether the list has been read since the login
let listing = 0;               // number of requests for the list
const endedHere = new Set();   // IDs of the sessions that this page has ended

async function listDevices() {
  const request = ++listing;
  const result = await call("GET", "/auth/sessions").catch(() => null);
  if (!me || !result?.ok || request !== listing) return;
  const list = $("devices");
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
  for (const session of result.data.sessions.sort((a, b) => b.current - a.current)) {
    let row = rows.get(session.id);
    rows.delete(session.id);
    if (!row) {
      row = deviceRow(session);
      list.append(row); // existing rows keep their place and the focus
      if (listed) log("New device: " + row.dataset.name);
    }
    row.querySelector(".used").dataset.at = session.last_used_at;
    row.querySelector(".ip").textContent = session.ip ?? "unknown address";
  }
  for (const row of rows.values()) {
    if (!endedHere.delete(row.dataset.id) && row.dataset.id !== me.sid) log(row.dataset.name + " is signed out");
    const next = row.nextElementSibling ?? row.previousElementSibling;
    const held = row.contains(document.activeElement);
    row.remove();
    if (held) (next?.querySelector("button") ?? $("devices-title")).focus();
  }
  listed = true;
  $("no-devices").hidden = list.children.length > 0;
  showAges();
}

function deviceRow(s) {
  const row = element("li");
  const name = s.name || programOf(s.user_agent);
  row.dataset.id = s.id;
  row.dataset.name = name;
  const text = element("div", "device");
  const title = element("b", "", name);
  if (s.current) title.append(element("span", "tag", "this device"));
  const agent = element("span", "faint", s.name ? programOf(s.user_agent) : "signed in " + moment(s.created_at));
  agent.title = s.user_agent ?? "";
  const use = element("span", "faint");
  use.append(element("span", "ip"), ", active ", element("span", "used"));
  text.append(title, agent, use);
  const end = element("button", "", "Sign out");
  end.type = "button";
  end.setAttribute("aria-label", "Sign out " + name);
  act(end, async () => {
    if (s.current) return leave({}, "You are signed out.");
    endedHere.add(s.id);
    const result = await call("DELETE", "/auth/sessions/" + encodeURIComponent(s.id));
    log(result.ok ? "Signed out " + name : "Sign-out failed: " + (result.data.error_description ?? result.status));
    await listDevices();
  });
  row.append(text, end);
  return row;
}

function showAges() {
  for (const e of document.querySelectorAll(".used")) {
    const text = ago(e.dataset.at);
    if (e.textContent !== text) e.textContent = text;
  }
}

for (const button of document.querySelectorAll("[data-get]")) {
  act(button, async () => {
    const result = await call("GET", button.dataset.get);
    if (me) $("response").textContent = result.status + " " + JSON.stringify(result.data, null, 2);
  });
}

function log(text) {
  $("log-card").hidden = false;
  const row = element("li");
  const time = element("time", "", clock(new Date()));
  row.append(time, element("span", "", text));
  $("log").prepend(row);
  while ($("log").children.length > 100) $("log").lastChild.remove();
}

// live shows the state of the stream: "on", "off" or neither.
function live(state, text) {
  $("live").className = "live " + state;
  $("live-text").textContent = text;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function element(tag, className = "", text = "") {
  const e = document.createElement(tag);
  e.className = className;
  e.textContent = text;
  return e;
}

const clock = (t) => new Date(t).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const moment = (t) => new Date(t).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

// ago describes a time of the server's clock.
function ago(t) {
  const s = Math.max(0, Math.round((Date.now() + ahead - new Date(t)) / 1000));
  if (s < 5) return "just now";
  if (s < 60) return s + " s ago";
  if (s < 3600) return Math.floor(s / 60) + " min ago";
  if (s < 86400) return Math.floor(s / 3600) + " h ago";
  return moment(t);
}

// programOf returns a short description of a User-Agent.
function programOf(agent) {
  if (!agent) return "Unknown client";
  const find = (pairs) => pairs.find(([pattern]) => pattern.test(agent))?.[1];
  const name = find([[/Edg\//, "Edge"], [/OPR\//, "Opera"], [/Firefox\//, "Firefox"], [/Chrom(e|ium)\//, "Chrome"], [/Safari\//, "Safari"], [/^curl\//, "curl"]]);
  const system = find([[/Android/, "Android"], [/iPhone|iPad/, "iOS"], [/Windows/, "Windows"], [/Mac OS X/, "macOS"], [/Linux/, "Linux"]]);
  return name ? name + (system ? " on " + system : "") : agent;
}

$("origin").textContent = location.origin;
setInterval(showLeft, 250);
setInterval(showAges, 1000);
setInterval(watch, 1000);
setInterval(() => { if (me && !document.hidden && !down) listDevices(); }, 5000);
start();
