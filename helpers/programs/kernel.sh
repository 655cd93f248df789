# Starts the kernel of the checkout in which the notebook lies: a kernel begins in its notebook's
# folder. Registered by helpers/programs/kernel.py; $1 is Jupyter's connection file.
folder=$(pwd -P)
while [ "$folder" != / ]; do
  if [ -f "$folder/.venv/.kernel" ] && [ -f "$folder/helpers/programs/kernel.py" ]; then
    # Another package called helpers on the reader's PYTHONPATH comes after ours.
    PYTHONPATH="$folder${PYTHONPATH:+:$PYTHONPATH}"
    export PYTHONPATH
    exec "$folder/.venv/bin/python" -P -m helpers.programs.kernel start "$1"
  fi
  folder=$(dirname "$folder")
done
# This checkout is not set up: any kernel will do, for the first cell says so.
while read -r folder; do
  if [ -x "$folder/.venv/bin/python" ]; then
    exec "$folder/.venv/bin/python" -m ipykernel_launcher -f "$1"
  fi
done <"$(dirname "$0")/checkouts"
exec python3 -m ipykernel_launcher -f "$1"
