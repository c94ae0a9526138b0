// Keeps the session refreshed while a page is open, and says when it has ended, also
// in another tab. Without this script, the server refreshes when a page is loaded.
import { createClient } from "/auth.js";

const ended = document.getElementById("ended");
const auth = createClient({ expiresIn: +ended.dataset.expiresIn });
let leaving = false;

auth.addEventListener("signed-out", () => { ended.hidden = leaving; });
auth.addEventListener("signed-in", () => { ended.hidden = true; });

// The button "Sign out" also tells the other tabs.
document.querySelector('form[action="/logout"]').addEventListener("submit", async (e) => {
  e.preventDefault();
  leaving = true;
  const done = await auth.logout().then((response) => response.ok, () => false);
  if (done) location.assign("/");
  else e.target.submit(); // the browser shows what is wrong
});
