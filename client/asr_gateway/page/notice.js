// The one message of what went wrong.

const $ = (id) => document.getElementById(id);

export class Notice {
  problem = null; // that is shown

  constructor() {
    $("notice-close").onclick = () => {
      this.hide();
      $("start").focus();
    };
    $("notice-again").onclick = () => this.onAgain();
  }

  show(problem) {
    const isSame = this.problem?.what === problem.what && this.problem.detail === problem.detail;
    this.problem = problem;
    if (isSame) return; // it is not read out again
    $("notice-what").textContent = problem.what;
    $("notice-advice").textContent = problem.advice ?? "";
    $("notice-detail").textContent = problem.detail ?? "";
    $("notice-again").hidden = !problem.isAway;
    $("notice-close").hidden = problem.isAway || problem.needsKey; // it closes by itself
    $("notice").hidden = false;
    if (problem.advice === undefined) throw problem; // a fault of this page: for its console
  }

  hide() {
    this.problem = null;
    $("notice").hidden = true;
  }
}
