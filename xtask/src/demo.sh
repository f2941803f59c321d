# The demo's agent. Nothing in here knows of ana.
set -eu
# Nobody's own configuration, so that the same happens everywhere.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0

echo "agent: I make a repository and commit to it"
git init --quiet --initial-branch=main work
cd work
git config user.name "An Agent"
git config user.email agent@example.com
echo "print('hello')" > hello.py
git add hello.py
git commit --quiet --message "Say hello"
git --no-pager log --oneline

echo "agent: now I publish it: git push origin main"
git init --quiet --bare ../published.git
git remote add origin ../published.git
if git push --quiet origin main; then
  echo "agent: it is published"
else
  echo "agent: it is not published: git push ended with $?"
fi
