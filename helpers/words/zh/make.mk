# Makefile 自己要说的话，中文版（Makefile 按 LANGUAGE 或 locale 引入；tests/test_words.py 检查是否齐全）。
NEEDS_PYTHON_SAYS = 需要 Python $(subst $() ,、,$(VERSIONS:%=%))，而 '$(PYTHON)' 不是其中之一：请安装一个，或用 'make PYTHON=/path/to/python3.11 ...' 指明它的位置。
NEEDS_VENV_SAYS = Python 无法创建虚拟环境：在 Debian 和 Ubuntu 上请先执行 'apt install python3.11-venv'，再重新执行这条命令。
SETTING_UP_SAYS = 正在按 $(LOCK) 安装 $(VENV) ……
MAKING_PYTHON_SAYS = 本机没有合适的 Python：由 conda 在 .venv-python 中建立 Python 3.11 ……
TARGETS := helpers/words/zh/make.mk

# help:  ## 列出所有命令
# setup:  ## 按锁文件建立 .venv，或修复它
# run:  ## 运行六个 notebook，并输出比较结果
# runs:  ## 列出各次运行：正在进行的任务和已完成的内容
# stop:  ## 停止 RUN=名称 的 notebook 启动的训练，并保存检查点
# test:  ## 静态检查、单元测试，并用 smoke 配置档运行两种语言的六个 notebook
# check:  ## 耗时较长的测试：真实训练、模拟的 NPU、浏览器
# fuzz:  ## 尝试 600 种恶劣情形（约 15 分钟）；CASES=60 SEED=7
# plan:  ## 租机器之前，规划训练所需的内存、时间和费用（CARD=910B2 PRICE=2.88 CARD_GIB=64）
# study:  ## 研究模型大小、方法和随机种子：MODELS="Qwen2-0.5B Qwen2-7B" METHODS="lora qlora" SEEDS=3，或 STUDY=article
# nodes:  ## 打印多台机器一起训练时每台要运行的命令：NODES=2 CARDS=8 MASTER_ADDR=192.168.1.10
# data:  ## 按 configs/lora.yaml 的要求把模型和数据取到本机
# notebooks:  ## 收录一次运行所执行的两种语言的 notebook，以便提交
# report:  ## 写出 runs/名称/report.html，便于分享的单页报告：RUN=名称 LANGUAGE=zh
# book:  ## 不联网构建中英两个版本的站点（book/build/site）
# evalscope:  ## 启动一次运行中各模型的服务，由 evalscope 评分：SUBJECT="base lora" LIMIT=20
# generations:  ## 用旧版 CANN 的 torch 测试模拟 NPU、算子和配方
# lab:  ## 在 JupyterLab 中打开 notebook（仅限本机）
# doctor:  ## 检查本机，无论是否已装好环境；有检查失败时以失败状态退出
# card:  ## 用十分钟在本机的卡上测量算子和配方
# bench:  ## 测量各配方、TRL、整个流程和 4 比特算子的时间（约两小时）
# plans:  ## 为三个模型规划原文的配方（benchmarks/results/plans.json）
# lint:  ## ruff、mypy、各房间的导入方向，以及两种语言
# words:  ## 收集读者会读到的全部文字，放进语言目录，并生成其他语言的 notebook
# font:  ## 用装有 Noto Sans SC 的 wheel 重新制作图中的中文字体
# lock:  ## 把 pyproject.toml 解析成各个锁文件
# clean:  ## 删除 .venv 及其内核注册（运行结果和模型保留）
