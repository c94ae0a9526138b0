"use strict";

// The tokens are in HttpOnly cookies, which the browser sends along by itself.
// All that this script knows is how long the access token lasts: from
// "expires_in" in the answers to a login, a refresh and GET /api/me.

const $ = (id) => document.getElementById(id);
const tabs = new BroadcastChannel("quickstart");

let me = null;          // the answer of /api/me while signed in
let lifetime = 0;       // of the access token, in seconds
let deadline = 0;       // its end, by this machine's clock
let timer = 0;          // of the next refresh
let refreshing = null;  // the one that is under way
let told = 0;           // how often another tab said that it had refreshed
let stream = null;      // the EventSource

// ---- requests

async function send(method, path, body) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store", signal: AbortSignal.timeout(10000) });
  const text = await response.text();
  let data = {};
  try { data = text ? JSON.parse(text) : {}; } catch { /* not ours: a proxy's page */ }
  return { status: response.status, ok: response.ok, data };
}

// call is send for what needs a session: an access token that has expired is
// refreshed, and the request sent again; one that cannot be ends the session.
async function call(method, path, body) {
  let answer = await send(method, path, body);
  if (answer.status === 401 && answer.data.action === "refresh") {
    if (!await refresh()) return answer;
    answer = await send(method, path, body);
  }
  if (answer.status === 401 && answer.data.action === "login" && me) signedOut("Your session has ended. Please sign in again.");
  return answer;
}

// refresh reports whether there is a fresh access token. The server copes with
// several tabs that refresh at once; the lock merely saves it the work.
function refresh() {
  const before = told;
  refreshing ??= locked(async () => {
    if (told !== before) return true;
    const answer = await send("POST", "/auth/refresh");
    if (answer.ok) {
      tabs.postMessage({ type: "refreshed", expires_in: answer.data.expires_in });
      if (me) log("Access token refreshed");
      setExpiry(answer.data.expires_in);
      listDevices();
    } else if (answer.status === 400 || answer.status === 401) {
      if (me) signedOut("Your session has ended. Please sign in again.");
    } else {
      throw new Error("refresh: " + answer.status);
    }
    return answer.ok;
  }).finally(() => { refreshing = null; });
  return refreshing;
}

function locked(f) {
  return navigator.locks ? navigator.locks.request("quickstart-refresh", f) : f();
}

// setExpiry notes how long the access token lasts, and sees to the next one
// shortly before its end.
function setExpiry(seconds, total = seconds) {
  lifetime = Math.max(total, seconds, 1);
  deadline = Date.now() + seconds * 1000;
  const lead = Math.min(30, Math.max(1, lifetime / 5));
  refreshIn(Math.max(0, seconds - lead));
  showLeft();
}

function refreshIn(seconds) {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    if (!me) return;
    try {
      await refresh();
    } catch {
      log("Cannot refresh, trying again");
      refreshIn(3);
    }
  }, seconds * 1000);
}

// ---- events of the server

function listen() {
  stream?.close();
  stream = new EventSource("/api/events");
  const mine = stream;
  mine.addEventListener("tick", (e) => live(true, "Server time " + clock(JSON.parse(e.data).time)));
  mine.addEventListener("end", (e) => {
    mine.close();
    const { reason } = JSON.parse(e.data);
    live(false, "Stream ended: " + reason);
    if (!me || stream !== mine) return;
    if (reason === "revoked") ended();
    else setTimeout(() => resume(mine), 1000);
  });
  mine.onerror = () => {
    live(false, "Reconnecting");
    if (mine.readyState === EventSource.CLOSED) setTimeout(() => resume(mine), 2000); // refused: call will see why
  };
}

// resume opens the stream again, once the session is known to be good.
async function resume(old) {
  if (!me || stream !== old) return;
  try {
    const answer = await call("GET", "/api/me");
    if (!me || stream !== old) return;
    if (answer.ok) {
      show(answer.data);
      return listen();
    }
  } catch { /* the server is away */ }
  setTimeout(() => resume(old), 2000);
}

// ended: the session of this page is over. Another tab may have signed in
// meanwhile, and then the cookies are those of the new session.
async function ended() {
  const before = me;
  const answer = await send("GET", "/api/me").catch(() => null);
  if (me !== before) return;
  if (answer?.ok && answer.data.sid !== me.sid) {
    log("Signed in again in another tab");
    enter(answer.data);
  } else {
    signedOut("You were signed out: this session was ended from another device or tab.");
  }
}

// A browser keeps few connections to one host, so pages that nobody looks at
// let theirs go after a while.
let hiding = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(() => { stream?.close(); live(false, "Paused"); }, 20000);
  else if (me && stream?.readyState === EventSource.CLOSED) resume(stream);
});

tabs.onmessage = ({ data }) => {
  if (data.type === "refreshed" && me) {
    told++;
    log("Access token refreshed by another tab");
    setExpiry(data.expires_in);
  }
  if (data.type === "signed-in") start();
  if (data.type === "signed-out" && me?.sid === data.sid) signedOut("You signed out in another tab.");
};

// ---- signing in and out

async function start() {
  try {
    const answer = await call("GET", "/api/me");
    if (answer.ok) enter(answer.data);
    else signedOut(answer.data.error === "missing_token" || me ? "" : "Your session has ended. Please sign in again.");
  } catch {
    notice("The server does not answer. Trying again.");
    setTimeout(start, 2000);
  }
}

function enter(data) {
  const same = me?.sid === data.sid;
  show(data);
  if (same) return;
  notice("");
  view("in");
  log("Signed in as " + data.username);
  listen();
  listDevices();
}

function signedOut(message) {
  me = null;
  clearTimeout(timer);
  stream?.close();
  stream = null;
  view("out");
  $("devices").replaceChildren();
  $("answer").textContent = "Press a button to send a request.";
  notice(message);
  if (message) log(message);
  document.title = message ? "Signed out · Ratchet quickstart" : "Ratchet quickstart";
  $("login").elements.login.focus();
}

$("login").addEventListener("submit", async (e) => {
  e.preventDefault();
  const form = e.target;
  const button = form.querySelector("button");
  const { login, password, device } = Object.fromEntries(new FormData(form));
  button.disabled = true;
  $("login-error").hidden = true;
  try {
    const answer = await send("POST", "/auth/login", { login, password, device });
    if (!answer.ok) throw new Error(answer.status === 401 ? "User name or password is wrong." : answer.data.error_description);
    await start();
    if (!me) throw new Error("The browser did not keep the cookies. Unless the server is on a loopback address, they need HTTPS.");
    form.reset();
    tabs.postMessage({ type: "signed-in" });
  } catch (err) {
    $("login-error").textContent = err instanceof TypeError ? "The server does not answer." : err.message;
    $("login-error").hidden = false;
    form.elements.password.select();
  } finally {
    button.disabled = false;
  }
});

for (const button of document.querySelectorAll("[data-fill]")) {
  button.addEventListener("click", () => {
    const fields = $("login").elements;
    fields.login.value = button.dataset.fill;
    fields.password.value = "correct horse battery staple";
    fields.password.focus();
  });
}

// act runs f while the button is disabled, and says what went wrong.
function act(button, f) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await f();
    } catch {
      log("The server does not answer");
    } finally {
      button.disabled = false;
    }
  });
}

async function leave(path, message) {
  const { sid } = me;
  const mine = stream;
  stream = null; // what it says of this session's end is no news
  const answer = await call("POST", path).finally(() => { if (me) stream = mine; });
  if (!answer.ok) return log("Not signed out: " + (answer.data.error_description ?? answer.status));
  tabs.postMessage({ type: "signed-out", sid });
  signedOut(message);
}

act($("refresh"), refresh);
act($("logout"), () => leave("/auth/logout", "You have signed out."));
act($("logout-all"), () => leave("/auth/logout/all", "You have signed out on all devices."));
act($("logout-others"), async () => {
  if ((await call("POST", "/auth/logout/all?others=true")).ok) log("Signed out on all other devices");
  await listDevices();
});

// ---- what is shown

// view shows what is for those who are signed "in", or "out".
function view(which) {
  $("main").classList.toggle("out", which === "out");
  for (const part of document.querySelectorAll("[data-when]")) part.hidden = part.dataset.when !== which;
  $("live").hidden = which === "out";
}

function show(data) {
  const same = me?.sid === data.sid;
  me = data;
  document.title = data.username + " · Ratchet quickstart";
  $("username").textContent = data.username;
  $("roles").replaceChildren(...(data.roles ?? []).map((role) => element("span", "tag", role)));
  $("since").textContent = moment(data.auth_time);
  $("until").textContent = moment(data.session_expires_at);
  $("sid").textContent = data.sid;
  setExpiry(data.expires_in, same ? lifetime : data.expires_in);
}

function showLeft() {
  if (!me) return;
  const left = Math.max(0, Math.ceil((deadline - Date.now()) / 1000));
  $("left").textContent = left < 100 ? left + " s" : Math.floor(left / 60) + ":" + String(left % 60).padStart(2, "0");
  $("ring").style.strokeDashoffset = 100 - 100 * Math.min(1, left / lifetime);
}

async function listDevices() {
  const answer = await call("GET", "/auth/sessions").catch(() => null);
  if (!me || !answer?.ok) return;
  const list = $("devices");
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
  for (const session of answer.data.sessions.sort((a, b) => b.current - a.current)) {
    const row = rows.get(session.id) ?? deviceRow(session);
    rows.delete(session.id);
    row.querySelector(".used").textContent = (session.ip ?? "unknown address") + ", used " + ago(session.last_used_at);
    if (!row.isConnected) list.append(row); // rows stay where they are, and so does the focus
  }
  for (const row of rows.values()) row.remove();
}

function deviceRow(s) {
  const row = element("li");
  row.dataset.id = s.id;
  const text = element("div", "device");
  const title = element("b", "", s.name || program(s.user_agent));
  if (s.current) title.append(element("span", "tag", "this device"));
  const agent = element("span", "faint", s.name ? program(s.user_agent) : "signed in " + moment(s.created_at));
  agent.title = s.user_agent ?? "";
  text.append(title, agent, element("span", "faint used"));
  const end = element("button", "", s.current ? "Sign out" : "End");
  end.type = "button";
  end.setAttribute("aria-label", (s.current ? "Sign out " : "End the session of ") + (s.name || program(s.user_agent)));
  act(end, async () => {
    if (s.current) return leave("/auth/logout", "You have signed out.");
    const answer = await call("DELETE", "/auth/sessions/" + encodeURIComponent(s.id));
    log(answer.ok ? "Ended the session of " + (s.name || program(s.user_agent)) : "Not ended: " + (answer.data.error_description ?? answer.status));
    await listDevices();
  });
  row.append(text, end);
  return row;
}

for (const button of document.querySelectorAll("[data-get]")) {
  act(button, async () => {
    const answer = await call("GET", button.dataset.get);
    if (me) $("answer").textContent = answer.status + " " + JSON.stringify(answer.data, null, 2);
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

function live(on, text) {
  $("live").classList.toggle("on", on);
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

function ago(t) {
  const s = Math.max(0, Math.round((Date.now() - new Date(t)) / 1000));
  if (s < 10) return "just now";
  if (s < 60) return s + " seconds ago";
  if (s < 3600) return Math.floor(s / 60) + " min ago";
  return moment(t);
}

// program makes a few words of a User-Agent.
function program(agent) {
  if (!agent) return "Unknown program";
  const find = (pairs) => pairs.find(([pattern]) => pattern.test(agent))?.[1];
  const name = find([[/Edg\//, "Edge"], [/OPR\//, "Opera"], [/Firefox\//, "Firefox"], [/Chrom(e|ium)\//, "Chrome"], [/Safari\//, "Safari"], [/^curl\//, "curl"]]);
  const system = find([[/Android/, "Android"], [/iPhone|iPad/, "iOS"], [/Windows/, "Windows"], [/Mac OS X/, "macOS"], [/Linux/, "Linux"]]);
  return name ? name + (system ? " on " + system : "") : agent;
}

setInterval(showLeft, 250);
setInterval(() => { if (me && !document.hidden) listDevices(); }, 5000);
start();
