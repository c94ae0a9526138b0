"use strict";

// The tokens are in HttpOnly cookies, which the browser sends with each request.
// This script knows only when the access token expires, from "expires_in" in the
// responses to a login, a refresh and GET /api/me.

const $ = (id) => document.getElementById(id);
const tabs = new BroadcastChannel("quickstart");

let me = null;          // data of /api/me while signed in
let lifetime = 0;       // lifetime of the access token, in seconds
let deadline = 0;       // when it expires, by the clock of this machine
let timer = 0;          // timer of the next refresh
let refreshing = null;  // promise of the refresh in progress
let refreshes = 0;           // number of refreshes by other tabs
let stream = null;      // the EventSource

// ---- requests

async function send(method, path, body) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store", signal: AbortSignal.timeout(10000) });
  const text = await response.text();
  let data = {};
  try { data = text ? JSON.parse(text) : {}; } catch { /* not JSON, for example the error page of a proxy */ }
  return { status: response.status, ok: response.ok, data };
}

// call is send for requests that need a session. If the access token has expired, it
// refreshes it and sends the request again. If the session has ended, it shows the
// sign-in form.
async function call(method, path, body) {
  let result = await send(method, path, body);
  if (result.status === 401 && result.data.action === "refresh") {
    if (!await refresh()) return result;
    result = await send(method, path, body);
  }
  if (result.status === 401 && result.data.action === "login" && me) signedOut("Your session has ended. Sign in again.");
  return result;
}

// refresh refreshes the access token, and reports whether it succeeded. The lock
// saves requests if several tabs refresh at once; the server does not need it.
function refresh() {
  const before = refreshes;
  refreshing ??= locked(async () => {
    if (refreshes !== before) return true;
    const result = await send("POST", "/auth/refresh");
    if (result.ok) {
      tabs.postMessage({ type: "refreshed", expires_in: result.data.expires_in });
      if (me) log("Access token refreshed");
      setExpiry(result.data.expires_in);
      listDevices();
    } else if (result.status === 400 || result.status === 401) {
      if (me) signedOut("Your session has ended. Sign in again.");
    } else {
      throw new Error("refresh failed with status " + result.status);
    }
    return result.ok;
  }).finally(() => { refreshing = null; });
  return refreshing;
}

function locked(f) {
  return navigator.locks ? navigator.locks.request("quickstart-refresh", f) : f();
}

// setExpiry stores when the access token expires, and schedules the next refresh
// shortly before that.
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
      log("The refresh failed. Retrying.");
      refreshIn(3);
    }
  }, seconds * 1000);
}

// ---- server-sent events

function listen() {
  stream?.close();
  stream = new EventSource("/api/events");
  const current = stream;
  current.addEventListener("tick", (e) => live(true, "Server time " + clock(JSON.parse(e.data).time)));
  current.addEventListener("end", (e) => {
    current.close();
    const { reason } = JSON.parse(e.data);
    live(false, "Disconnected: " + reason);
    if (!me || stream !== current) return;
    if (reason === "revoked") ended();
    else setTimeout(() => resume(current), 1000);
  });
  current.onerror = () => {
    live(false, "Reconnecting…");
    if (current.readyState === EventSource.CLOSED) setTimeout(() => resume(current), 2000); // the request was refused; resume finds out why
  };
}

// resume reconnects the stream if the session is still valid.
async function resume(old) {
  if (!me || stream !== old) return;
  try {
    const result = await call("GET", "/api/me");
    if (!me || stream !== old) return;
    if (result.ok) {
      show(result.data);
      return listen();
    }
  } catch { /* the server is unreachable */ }
  setTimeout(() => resume(old), 2000);
}

// ended handles the end of this page's session. If another tab has signed in since,
// the cookies belong to a new session, which the page then shows.
async function ended() {
  const before = me;
  const result = await send("GET", "/api/me").catch(() => null);
  if (me !== before) return;
  if (result?.ok && result.data.sid !== me.sid) {
    log("Signed in again in another tab");
    enter(result.data);
  } else {
    signedOut("You were signed out elsewhere.");
  }
}

// Browsers limit the number of connections to a host, so a hidden page closes its
// stream after 20 seconds.
let hiding = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(() => { stream?.close(); live(false, "Paused"); }, 20000);
  else if (me && stream?.readyState === EventSource.CLOSED) resume(stream);
});

tabs.onmessage = ({ data }) => {
  if (data.type === "refreshed" && me) {
    refreshes++;
    log("Access token refreshed by another tab");
    setExpiry(data.expires_in);
  }
  if (data.type === "signed-in") start();
  if (data.type === "signed-out" && me?.sid === data.sid) signedOut("You signed out in another tab.");
};

// ---- signing in and out

async function start() {
  try {
    const result = await call("GET", "/api/me");
    if (result.ok) enter(result.data);
    else signedOut(result.data.error === "missing_token" || me ? "" : "Your session has ended. Sign in again.");
  } catch {
    notice("The server is not responding. Retrying…");
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
  $("response").textContent = "Choose a request to see its response.";
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
    const result = await send("POST", "/auth/login", { login, password, device });
    if (!result.ok) throw new Error(result.status === 401 ? "Incorrect user name or password." : result.data.error_description);
    await start();
    if (!me) throw new Error("The browser did not store the cookies. Unless the server has a loopback address, this page needs HTTPS.");
    form.reset();
    tabs.postMessage({ type: "signed-in" });
  } catch (err) {
    $("login-error").textContent = err instanceof TypeError ? "The server is not responding." : err.message;
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

// act calls f when the button is clicked, and disables the button meanwhile.
function act(button, f) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await f();
    } catch {
      log("The server is not responding.");
    } finally {
      button.disabled = false;
    }
  });
}

async function leave(path, message) {
  const { sid } = me;
  const current = stream;
  stream = null; // ignore the event about the end of this session
  const result = await call("POST", path).finally(() => { if (me) stream = current; });
  if (!result.ok) return log("Sign-out failed: " + (result.data.error_description ?? result.status));
  tabs.postMessage({ type: "signed-out", sid });
  signedOut(message);
}

act($("refresh"), refresh);
act($("logout"), () => leave("/auth/logout", "You are signed out."));
act($("logout-all"), () => leave("/auth/logout/all", "You are signed out on all devices."));
act($("logout-others"), async () => {
  if ((await call("POST", "/auth/logout/all?others=true")).ok) log("Signed out all other devices");
  await listDevices();
});

// ---- rendering

// view shows the elements for the state "in" (signed in) or "out".
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
  const result = await call("GET", "/auth/sessions").catch(() => null);
  if (!me || !result?.ok) return;
  const list = $("devices");
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
  for (const session of result.data.sessions.sort((a, b) => b.current - a.current)) {
    const row = rows.get(session.id) ?? deviceRow(session);
    rows.delete(session.id);
    row.querySelector(".used").textContent = (session.ip ?? "unknown address") + ", active " + ago(session.last_used_at);
    if (!row.isConnected) list.append(row); // existing rows keep their place and the focus
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
  const end = element("button", "", "Sign out");
  end.type = "button";
  end.setAttribute("aria-label", "Sign out " + (s.name || program(s.user_agent)));
  act(end, async () => {
    if (s.current) return leave("/auth/logout", "You are signed out.");
    const result = await call("DELETE", "/auth/sessions/" + encodeURIComponent(s.id));
    log(result.ok ? "Signed out " + (s.name || program(s.user_agent)) : "Sign-out failed: " + (result.data.error_description ?? result.status));
    await listDevices();
  });
  row.append(text, end);
  return row;
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

// program returns a short description of a User-Agent.
function program(agent) {
  if (!agent) return "Unknown client";
  const find = (pairs) => pairs.find(([pattern]) => pattern.test(agent))?.[1];
  const name = find([[/Edg\//, "Edge"], [/OPR\//, "Opera"], [/Firefox\//, "Firefox"], [/Chrom(e|ium)\//, "Chrome"], [/Safari\//, "Safari"], [/^curl\//, "curl"]]);
  const system = find([[/Android/, "Android"], [/iPhone|iPad/, "iOS"], [/Windows/, "Windows"], [/Mac OS X/, "macOS"], [/Linux/, "Linux"]]);
  return name ? name + (system ? " on " + system : "") : agent;
}

setInterval(showLeft, 250);
setInterval(() => { if (me && !document.hidden) listDevices(); }, 5000);
start();
