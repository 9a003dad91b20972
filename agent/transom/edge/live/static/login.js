// The form of the token. It goes in a header, so that no address and no log has it.
const answer = document.getElementById("answer");

document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  answer.textContent = "";
  const token = document.getElementById("token").value.trim();
  try {
    const reply = await fetch("login", { headers: { Authorization: `Bearer ${encodeURI(token)}` } });
    if (reply.ok) location.replace("./");
    else answer.textContent = "This is not the token.";
  } catch {
    answer.textContent = "The agent does not answer.";
  }
});
