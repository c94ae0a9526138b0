// send sends the requests of rows, each in the way that its kind names. It returns
// when the server has responded to all of them, or the browser has refused to send
// them. It works in a page, in a sandboxed frame and in a data: URL.
const base = new URL(document.currentScript.src).origin;
const served = (row) => fetch(base + "/served?row=" + row.id).then((r) => r.text());

const frame = (row) => {
	const e = document.createElement("iframe");
	e.name = "frame" + row.id;
	document.body.append(e);
	return e;
};
const submit = (row, enctype, fields, target) => {
	const form = document.createElement("form");
	Object.assign(form, { method: "post", action: row.url, enctype, target });
	for (const [name, value] of Object.entries(fields)) {
		const input = document.createElement("input");
		Object.assign(input, { type: "hidden", name, value });
		form.append(input);
	}
	document.body.append(form);
	form.submit();
	form.remove();
	return served(row);
};
const inWindow = async (row, opened) => {
	const w = opened();
	await served(row);
	w.close();
};
const post = (row, mode, body, headers = {}) =>
	fetch(row.url, { method: "POST", mode, credentials: "include", body, headers }).catch(() => {});
const form = (row) => new URLSearchParams(row.fields);
const json = (row) => JSON.stringify(row.fields);
const query = (row) => row.url + "&" + form(row);
// jsonFields returns fields with which a form of the type text/plain is JSON.
const jsonFields = (row) => ({ [json(row).slice(0, -1) + (json(row) === "{}" ? "" : ",") + `"pad":"`]: `"}` });

const kinds = {
	"form": (row) => submit(row, "application/x-www-form-urlencoded", row.fields, frame(row).name),
	"form, multipart": (row) => submit(row, "multipart/form-data", row.fields, frame(row).name),
	"form, text/plain": (row) => submit(row, "text/plain", jsonFields(row), frame(row).name),
	"fetch": (row) => post(row, "no-cors", form(row)),
	"fetch, text/plain": (row) => post(row, "no-cors", json(row)),
	"fetch, no type": (row) => post(row, "no-cors", new Blob([json(row)])),
	"fetch, CORS": (row) => post(row, "cors", form(row)),
	"fetch, CORS, JSON": (row) => post(row, "cors", json(row), { "Content-Type": "application/json" }),
	"fetch, CORS, DELETE": (row) => fetch(row.url, { method: "DELETE", credentials: "include" }).catch(() => {}),
	"beacon": (row) => navigator.sendBeacon(row.url, form(row)) && served(row),
	"WebSocket": (row) => new Promise((done) => {
		const ws = new WebSocket(row.url.replace(/^http/, "ws"));
		ws.onopen = ws.onerror = () => { ws.close(); done(); };
	}),
	"EventSource": (row) => new Promise((done) => {
		const events = new EventSource(row.url, { withCredentials: true });
		events.onopen = events.onerror = () => { events.close(); done(); };
	}),
	"image": (row) => { new Image().src = query(row); return served(row); },
	"frame": (row) => { frame(row).src = query(row); return served(row); },
	"link": (row) => inWindow(row, () => open(query(row), "window" + row.id)),
	"form in a window": (row) => inWindow(row, () => {
		const w = open("about:blank", "window" + row.id);
		submit(row, "application/x-www-form-urlencoded", row.fields, "window" + row.id);
		return w;
	}),
};
const send = async (kind, rows) => {
	await Promise.all(rows.map(kinds[kind]));
	return "sent";
};

// inFrame is send in a frame without an origin.
const inFrame = (e, kind, rows) => new Promise((done) => {
	onmessage = ({ data }) => data === "ready" ? e.contentWindow.postMessage({ kind, rows }, "*") : done(data);
	document.body.append(e);
});
const inSandbox = (kind, rows) => {
	const e = document.createElement("iframe");
	e.sandbox = "allow-scripts allow-forms allow-popups";
	e.srcdoc = `<body><script src="${base}/attack.js"></script>`;
	return inFrame(e, kind, rows);
};
const inData = (kind, rows) => {
	const e = document.createElement("iframe");
	e.src = `data:text/html,<body><script src="${base}/attack.js"></script>`;
	return inFrame(e, kind, rows);
};
if (origin === "null") {
	onmessage = ({ data }) => send(data.kind, data.rows).then((result) => parent.postMessage(result, "*"));
	parent.postMessage("ready", "*");
}
